"""Draws a data set of phantom chest X-rays, so that everything can be tried without a patient.

Comes in: a folder, a seed, how many images. Goes out: data.yaml with images and labels in the YOLO layout.

    python -m ray_jobs.dataset.phantom --out data/phantom [--seed 0] [--train 240 --val 60 --test 60] [--size 256]

Each image is a function of the seed, its split and its number. A quarter of the images have no finding. The picture of
a chest is drawn in phantom_chest.py; nothing in it is anatomy to learn from.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ray_jobs.dataset.parallel import map_in_threads
from ray_jobs.dataset.phantom_chest import FINDINGS, draw_chest
from ray_jobs.entry import run_job
from ray_jobs.errors import DataError

_MARKER = "phantom.json"
_VERSION = 1


def draw_phantoms(
    folder: Path, *, seed: int = 0, train: int = 240, val: int = 60, test: int = 60, size: int = 256
) -> Path:
    """Draw a phantom data set into ``folder`` and return its data.yaml.

    A folder that holds the very same data set is used as it is. Any other folder that is not empty is left alone:
    ``DataError``. The data set appears whole or not at all.
    """
    folder = Path(folder)
    counts = {"train": train, "val": val, "test": test}
    if min(train, val) < 1 or test < 0 or not 64 <= size <= 4096:
        raise DataError(f"phantoms: train and val need at least 1 image and size 64 to 4096, got {counts}, {size}")
    made_with = {"version": _VERSION, "seed": seed, "size": size, "images": counts}
    if _holds(folder, made_with):
        return folder / "data.yaml"
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for number, (split, count) in enumerate(counts.items()):
        _draw_split(unfinished, split, count, [seed, number], size)
    (unfinished / "data.yaml").write_text(_description(counts))
    (unfinished / _MARKER).write_text(json.dumps(made_with, indent=1) + "\n")
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)
    return folder / "data.yaml"


def _holds(folder: Path, made_with: dict[str, object]) -> bool:
    """Whether the folder holds this very data set; ``DataError`` where it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        if json.loads((folder / _MARKER).read_text()) == made_with:
            return True
    except (OSError, ValueError):
        raise DataError(f"{folder}: holds something else than phantoms; choose another folder") from None
    raise DataError(f"{folder}: holds phantoms made with other settings; remove it or choose another folder")


def _draw_split(root: Path, split: str, count: int, seed: list[int], size: int) -> None:
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)

    def draw(number: int) -> None:
        rng = np.random.default_rng([*seed, number])
        pixels, boxes = draw_chest(rng, _findings_of(number, rng), size)
        name = f"phantom_{split}_{number:05d}"
        Image.fromarray(pixels).save(images / f"{name}.png")
        (labels / f"{name}.txt").write_text(
            "".join(f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in boxes)
        )

    map_in_threads(draw, range(count))


def _findings_of(number: int, rng: np.random.Generator) -> set[str]:
    """Every fourth image has none; in the others the classes take turns and a second one is there by chance."""
    if number % 4 == 3:
        return set()
    first = (number - number // 4) % len(FINDINGS)
    findings = {FINDINGS[first]}
    if rng.random() < 0.35:
        findings.add(FINDINGS[rng.integers(len(FINDINGS))])
    return findings


def _description(counts: dict[str, int]) -> str:
    lines = ["# Phantom chest X-rays; paths are relative to this file"]
    lines += [f"{split}: images/{split}" for split, count in counts.items() if count]
    lines += ["names:", *(f"  {number}: {name}" for number, name in enumerate(FINDINGS))]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Draw phantoms from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.dataset.phantom", description="Draw a data set of phantom chest X-rays with findings."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make; one that exists is never overwritten")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other chests (default %(default)s)")
    parser.add_argument("--train", type=int, default=240, help="training images (default %(default)s)")
    parser.add_argument("--val", type=int, default=60, help="validation images (default %(default)s)")
    parser.add_argument("--test", type=int, default=60, help="test images (default %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels (default %(default)s)")
    options = parser.parse_args(arguments)
    print(
        draw_phantoms(
            options.out,
            seed=options.seed,
            train=options.train,
            val=options.val,
            test=options.test,
            size=options.size,
        )
    )
    return 0


if __name__ == "__main__":
    run_job(main)
