"""Files that no one wishes for: each gives a clear error or a sane result, within bounded memory."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from small_detector import draw_picture, small_detector

MOST_MB = 1000  # of a process that reads 72 million pixels of 16 bits; Python and its libraries alone take 200

READ = r"""
import re, sys
from pathlib import Path
from ray_jobs.predict import main
code = main(sys.argv[1:])
# Not getrusage: what it calls the peak begins with the memory of the process that started this one.
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024, file=sys.stderr)
sys.exit(code)
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels, one bit each, which any reader makes a byte or more; a thousandth of that."""
    packer, line = zlib.compressobj(6), bytes(side // 8 + 1)
    data = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def text_bomb(png: bytes) -> bytes:
    """A good PNG with a comment that unpacks to 100 MB."""
    return png[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 6)) + png[33:]


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard")
    disc = draw_picture(1, [(0, 80, 70, 25)])[0]
    good = cv2.imencode(".png", disc)[1].tobytes()
    colour = Image.fromarray(disc).convert("RGB")
    (folder / "empty.png").write_bytes(b"")
    cv2.imwrite(str(folder / "black.png"), np.zeros((300, 200), np.uint8))
    cv2.imwrite(str(folder / "one_pixel.png"), np.zeros((1, 1), np.uint8))
    cv2.imwrite(str(folder / "long.png"), np.zeros((30, 20_000), np.uint8))
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    for name in ("animated.png", "animated.webp"):
        colour.save(folder / name, save_all=True, append_images=[Image.new("RGB", colour.size)] * 3)
    (folder / "truncated.png").write_bytes(good[: len(good) // 2])
    (folder / "renamed.jpg").write_bytes(good)
    (folder / "text.png").write_text("This is a report, not a picture.")
    (folder / "bomb.png").write_bytes(bomb(20_000))
    (folder / "text_bomb.png").write_bytes(text_bomb(good))
    large = cv2.resize(disc, (9000, 8000)).astype(np.uint16) * 16
    cv2.imwrite(str(folder / "large.png"), large, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return folder


@pytest.mark.slow
def test_each_is_told_or_read_within_bounded_memory(hard: Path, tmp_path: Path) -> None:
    arguments = [str(hard), "--model", str(small_detector() / "best.onnx"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", READ, *arguments],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    lines = {Path(line["file"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    said = [line for line in done.stderr.splitlines() if "skipped" in line]
    refused = {file.name: line for file in hard.iterdir() for line in said if f"/{file.name}:" in line}
    for name in ("cmyk.jpg", "animated.png", "animated.webp", "renamed.jpg", "large.png"):
        assert [one["label"] for one in lines[name]["findings"]] == ["Disc"], name
    for name in ("black.png", "one_pixel.png", "long.png"):
        assert lines[name]["summary"] == "No findings"
    expected = {
        "empty.png": "is empty",
        "truncated.png": "cut short",
        "text.png": "looks like text",
        "bomb.png": "more than the 80 million pixels",
    }
    for name, words in expected.items():
        assert words in refused[name]
    assert ("text_bomb.png" in lines) != ("text_bomb.png" in refused)
    assert set(lines) | set(refused) == {file.name for file in hard.iterdir()}
    drawn = cv2.imread(str(tmp_path / "out" / "large.png"))
    assert max(drawn.shape) == 2048
    peak_mb = int(done.stderr.splitlines()[-1])
    assert peak_mb < MOST_MB
