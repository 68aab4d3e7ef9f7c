"""Read X-rays with a trained detector: one JSON line per image, and a picture with the boxes drawn.

    python -m ray_jobs.predict chest.png --model runs/my-run/weights/best.onnx
    python -m ray_jobs.predict scans/ --model best.onnx --out drawn/ --threshold 0.4
    ray-jobs predict scans/ --model best.pt

A line holds file, width, height and findings (label, score in 0..1, box x1, y1, x2, y2 in pixels of the file); where
nothing is found it says "No findings". A file that cannot be read is reported and skipped, and the exit code is then 1.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.entry import run_job
from ray_jobs.errors import BadInput, DataError, StorageError, WeightsError
from ray_jobs.pixels import IMAGE_SUFFIXES, read_image
from ray_jobs.reading.drawing import NO_FINDINGS, draw_findings
from ray_jobs.reading.finding import DEFAULT_THRESHOLD, Finding, find
from ray_jobs.reading.reader import Reader

Read = Callable[[Sequence[npt.NDArray[Any]]], list[list[Finding]]]


def main(arguments: Sequence[str]) -> int:
    """Read every image that is named; 0 when all could be read, 1 when some could not."""
    options = _parse(arguments)
    images = _find_images(options.images)
    drawings = _plan_drawings(images, options.images, options.out)
    read, names = open_detector(options.model, options.threshold)
    bad = 0
    for image in images:
        try:
            gray = read_image(image)
        except DataError as error:
            bad += 1
            print(f"skipped: {error}", file=sys.stderr)
            continue
        findings = read([gray])[0]
        print(json.dumps(_line(image, gray, findings), ensure_ascii=False), flush=True)
        if image in drawings:
            _save(draw_findings(gray, findings, names=names), drawings[image])
    if bad:
        print(f"{bad} of {len(images)} files could not be read", file=sys.stderr)
    return 1 if bad else 0


def open_detector(model: Path, threshold: float | None = None) -> tuple[Read, tuple[str, ...]]:
    """A way to read with an ONNX file or a PyTorch checkpoint, and its class names.

    ``threshold`` is the score in 0..1 above which a finding counts; None takes those of the ONNX file, or 0.25.
    """
    if model.suffix == ".onnx":
        reader = Reader(model, threshold=threshold)
        return reader.read_batch, reader.names
    if model.suffix != ".pt":
        raise WeightsError(f"{model}: expected a detector as .onnx or .pt")
    from ray_jobs.detector.evaluation import model_facts, torch_forward

    names, image_size = model_facts(model)
    limit = DEFAULT_THRESHOLD if threshold is None else threshold
    return partial(find, torch_forward(model), names=names, image_size=image_size, threshold=limit), names


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, metavar="IMAGE|FOLDER", help="an X-ray, or a folder searched for them")
    parser.add_argument("--model", type=Path, required=True, help="the detector: best.onnx or best.pt")
    parser.add_argument("--out", type=Path, help="folder for the drawn pictures; without it nothing is drawn")
    parser.add_argument(
        "--threshold",
        type=_score,
        help="score in 0..1 above which a finding counts (default: what the ONNX file says, else 0.25)",
    )
    return parser.parse_args(arguments)


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in 0..1, got {text}")
    return value


def _find_images(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder")
    images = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not images:
        raise DataError(f"{place}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _plan_drawings(images: Sequence[Path], place: Path, out: Path | None) -> dict[Path, Path]:
    """Where each drawing goes; refuses, before anything is read, to write over a file that is there."""
    if out is None:
        return {}
    root = place if place.is_dir() else place.parent
    planned = {image: out / image.relative_to(root).with_suffix(".png") for image in images}
    by_target: dict[Path, list[Path]] = {}
    for image, target in planned.items():
        by_target.setdefault(target, []).append(image)
    for target, sources in by_target.items():
        if len(sources) > 1:  # a.png and a.jpg
            planned.update({source: target.with_name(f"{source.name}.png") for source in sources})
    problems = [
        f"{target}: is there already; choose another --out or move it away"
        for target in planned.values()
        if target.exists()
    ]
    if problems:
        raise BadInput(problems)
    return planned


def _line(image: Path, gray: npt.NDArray[np.uint8], findings: Sequence[Finding]) -> dict[str, Any]:
    height, width = gray.shape
    line: dict[str, Any] = {"file": str(image), "width": width, "height": height}
    line["findings"] = [finding.as_dict() for finding in findings]
    return line if findings else {**line, "summary": NO_FINDINGS}


def _save(picture: Any, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error.strerror or error}); choose another --out") from error


if __name__ == "__main__":
    run_job(main)
