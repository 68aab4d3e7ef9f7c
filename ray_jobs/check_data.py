"""Checks a data set, without taking a GPU.

    python -m ray_jobs.check_data --data config/data.yaml
    python -m ray_jobs.check_data --data config/data.yaml --patient-id-pattern '^(\\d{8})_' --out runs/check
    ray job submit --working-dir . -- python -m ray_jobs.check_data --data /data/chest/data.yaml

Training runs the same check before it starts. Exit codes: 0 the data set can be trained on, 2 it cannot.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.pictures import draw_sample_boxes
from ray_jobs.dataset.report import ALLOWABLE, KINDS, DatasetReport
from ray_jobs.dataset.source import describe_data
from ray_jobs.dataset.table import print_report
from ray_jobs.entry import run_job
from ray_jobs.errors import StorageError
from ray_jobs.settings import load_config_with_defaults

_EPILOG = """\
errors that can be allowed, and then are warnings:
{kinds}

what --out receives: report.json (counts, fingerprint, all kinds of problems), index.npz (images, sizes and boxes,
for programs) and samples_<split>.jpg (X-rays with their labelled boxes: look at them).

examples:
  python -m ray_jobs.check_data --data config/data.yaml
  python -m ray_jobs.check_data --data config/data.yaml --patient-id-pattern '^(\\d{{8}})_' --allow shared_patients
"""


def main(arguments: Sequence[str]) -> int:
    """Check a data set and print what was found. Raises ``DataError`` where it cannot be trained on."""
    options = _parse(arguments)
    settings = load_config_with_defaults(options.config)
    check = settings.data_check
    report = check_dataset(
        describe_data(options.data, settings.storage.data_cache),
        patient_id_pattern=options.patient_id_pattern or check.patient_id_pattern,
        allow=[*check.allow, *options.allow],
    )
    print_report(report)
    if options.out:
        _write(report, options.out)
    report.raise_for_errors()
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    kinds = "\n".join(f"  {name:18} {KINDS[name].meaning}" for name in KINDS if name in ALLOWABLE)
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.check_data",
        description="Check a data set in the YOLO layout: every image is opened, every label line is read, images and "
        "patients that stand in two splits are found. Nothing is written into the data set.",
        epilog=_EPILOG.format(kinds=kinds),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", required=True, metavar="YAML", help="data.yaml in the Ultralytics format, a file or s3://bucket/..."
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="settings; data_check and storage are used")
    parser.add_argument(
        "--patient-id-pattern",
        metavar="REGEX",
        help="finds the patient in an image's file name: the first group, or all that matches; "
        "then a patient in two splits is an error (default: not checked)",
    )
    parser.add_argument(
        "--allow", nargs="+", action="extend", default=[], metavar="KIND", help="errors to allow, by name (see below)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the report and sample pictures into this folder")
    return parser.parse_args(arguments)


def _write(report: DatasetReport, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n")
        if not report.errors:
            report.index.save(folder / "index.npz")
        for split, samples in report.index.splits.items():
            if samples:
                draw_sample_boxes(report.index, split, folder / f"samples_{split}.jpg")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written to: {error.strerror or error}") from None
    print(f"report and sample pictures are in {folder}")


if __name__ == "__main__":
    run_job(main)
