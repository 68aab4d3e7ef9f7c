"""A long list of X-rays needs no more memory than a short one."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_detector import draw_picture, small_detector
from test_predict_hard import READ

MOST_MORE_MB = 40  # what the allocator has not given back; a thousand drawings that stayed would be 300 MB


def peak_mb(folder: Path, out: Path) -> int:
    """Of a process that reads all that is in the folder."""
    arguments = [str(folder), "--model", str(small_detector() / "best.onnx"), "--out", str(out)]
    command = [sys.executable, "-c", READ, *arguments]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=400, check=True
    )
    count = len(list(folder.iterdir()))
    assert len(done.stdout.splitlines()) == count
    assert f"read: {count:,} of {count:,}, done" in done.stderr
    return int(re.findall(r"\d+", done.stderr)[-1])


@pytest.mark.slow
def test_memory_is_flat(tmp_path: Path) -> None:
    pictures = [cv2.resize(draw_picture(seed)[0], (512, 512)) for seed in range(10)]
    for name, count in (("few", 100), ("many", 1000)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = np.roll(pictures[number % 10], number, axis=1)
            cv2.imwrite(str(tmp_path / name / f"{number:04d}.png"), pixels)
    few, many = (peak_mb(tmp_path / name, tmp_path / f"{name}-out") for name in ("few", "many"))
    print(f"100 X-rays: {few} MB at most, 1,000: {many} MB")
    assert many - few < MOST_MORE_MB
