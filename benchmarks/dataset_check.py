"""How long the check of a data set takes: ``python benchmarks/dataset_check.py [--images 15000] [--size 512]``.

Draws that many gray JPEGs with a label each into a temporary folder, checks them, and prints the seconds.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description


def draw(folder: Path, images: int, size: int) -> None:
    """Smooth noise, each picture different, four fifths of them for training."""
    rng = np.random.default_rng(0)
    for number in range(images):
        split = "val" if number % 5 == 0 else "train"
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (size // 16, size // 16), dtype=np.uint8)
        picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / split / f"{number:06d}.jpg"), picture)
        (folder / "labels" / split / f"{number:06d}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [Nodule]\n")


def main() -> None:
    """Draw, check, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--size", type=int, default=512, help="pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), options.images, options.size)
        started = time.perf_counter()
        report = check_dataset(read_description(Path(folder) / "data.yaml"), show_progress=False)
        seconds = time.perf_counter() - started
    report.raise_for_errors()
    print(f"{options.images} images of {options.size} px checked in {seconds:.1f} s")


if __name__ == "__main__":
    main()
