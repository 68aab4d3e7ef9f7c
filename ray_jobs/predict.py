"""Read X-rays with a trained detector: one JSON line per image, and a picture with the boxes drawn.

    python -m ray_jobs.predict chest.png --model runs/my-run/weights/best.onnx
    python -m ray_jobs.predict scans/ --model models:/xray-detector@champion --out findings --threshold Mass=0.4
    python -m ray_jobs.predict s3://bucket/scans --model best.pt --out findings
    ray job submit --working-dir . -- python -m ray_jobs.predict /shared/scans --model best.onnx --out /shared/findings

A line holds file, width, height and findings (label, score in 0..1, box x1, y1, x2, y2 in pixels of the file); where
nothing is found it says "No findings". PNG, JPEG, TIFF, BMP, WebP and JPEG 2000 of 8 and 16 bits are read, and DICOM.
--out gets the drawings, the lines once more (findings.jsonl), and which detector it was; the same command again goes on
where an interrupted one ended. A file that cannot be read is reported and skipped, and the exit code is then 1.

Many files on a cluster (--cluster, or RAY_ADDRESS as ray job submit sets it) are read by Ray Data on all its cores;
anything else in threads of this process.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ray_jobs.dataset.parallel import shown
from ray_jobs.entry import run_job
from ray_jobs.reading.thresholds import parse_override
from ray_jobs.serving.chunk import Reading
from ray_jobs.serving.detector import find_detector
from ray_jobs.serving.findings_folder import FindingsFolder, open_folder
from ray_jobs.serving.folder import choose, load_here, read_here, read_on_cluster
from ray_jobs.serving.pictures import find_pictures

FEWEST_FOR_PROGRESS = 100


def main(arguments: Sequence[str]) -> int:
    """Read every image that is named; 0 when all could be read, 1 when some could not."""
    options = _parse(arguments)
    override = parse_override(options.threshold)
    pictures = find_pictures(options.images, options.out)
    file = find_detector(options.model, override)
    detector = load_here(file, len(pictures))  # tells what is wrong with it before anything is made
    folder = open_folder(options.out, pictures, file, detector) if options.out else None
    waiting = folder.waiting if folder else pictures
    if len(waiting) < len(pictures):
        print(f"{len(pictures) - len(waiting)} of {len(pictures)} were read before", file=sys.stderr)
    if choose(len(waiting), options.cluster):
        from ray_jobs.flows.ray_cluster import connect
        from ray_jobs.settings import ClusterSettings, Settings

        del detector
        connect(Settings(cluster=ClusterSettings(address=options.cluster)))
        readings = read_on_cluster(waiting, file, draw=bool(folder))
    else:
        readings = read_here(waiting, detector, draw=bool(folder))
    if len(waiting) >= FEWEST_FOR_PROGRESS:
        readings = shown(readings, len(waiting), "read")
    return _report(readings, len(pictures), folder)


def _report(readings: Iterable[list[Reading]], total: int, folder: FindingsFolder | None) -> int:
    bad = 0
    for reading in (reading for part in readings for reading in part):
        if reading.line is None:
            bad += 1
            print(f"skipped: {reading.problem}", file=sys.stderr)
            continue
        if folder:
            folder.write(reading)
        print(json.dumps(reading.line, ensure_ascii=False), flush=True)
    if bad:
        print(f"{bad} of {total} files could not be read", file=sys.stderr)
    return 1 if bad else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE|FOLDER|s3://...", help="X-rays, or where to search for them"
    )
    parser.add_argument("--model", required=True, help="the detector: models:/NAME@ALIAS, best.onnx or best.pt")
    parser.add_argument("--out", type=Path, help="folder for drawings and findings.jsonl; without it nothing is kept")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="SCORE|CLASS=SCORE",
        help="score in 0..1 above which a finding counts, for all classes or for one (default: the detector's own)",
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help="the Ray cluster to read on (default: RAY_ADDRESS)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_job(main)
