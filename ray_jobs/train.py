"""Train a detector: from X-rays with boxes to a tested, exported and registered model.

    python -m ray_jobs.train --config config/config.yaml --data config/data.yaml
    python -m ray_jobs.train --data data.yaml epochs=3 img_size=160 device=cpu pretrained=false   # a first try
    python -m ray_jobs.train --resume RUN                                                         # go on
    ray job submit --working-dir . -- python -m ray_jobs.train --config config/config.yaml --data config/data.yaml

The same command on a laptop (Ray is started inside it) and on a cluster (``cluster.address`` or RAY_ADDRESS).
Exit codes: 0 done, 1 failed while running, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM (go on: --resume).
"""

import argparse
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from ray_jobs.entry import run_job
from ray_jobs.errors import SettingsError
from ray_jobs.flows.display import open_display
from ray_jobs.flows.preparation import describe_plan, prepare
from ray_jobs.flows.promotion import decides, promote_run
from ray_jobs.flows.run_folder import RunFolder, find_run
from ray_jobs.flows.summary import print_summary
from ray_jobs.flows.training_run import run_training
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.yaml_source import quoted


def main(arguments: Sequence[str]) -> int:
    """Train as told on the command line; 0 when everything is done."""
    began = time.time()
    options = _parse(arguments)
    settings, run = _settings_and_run(options)
    with open_display() as display:
        prepared = prepare(settings, run, display)
        if options.dry_run:
            display("\n".join(["dry run: everything is in place", *describe_plan(prepared)]))
            return 0
        summary = run_training(prepared, display, began)
    print_summary(summary, run.path)
    if decides(settings):
        promote_run(settings, prepared.report.index, run, summary["registry"], display)
    return 0


def _settings_and_run(options: argparse.Namespace) -> tuple[Settings, RunFolder]:
    if options.resume:
        refused = [name for name in ("data", "experiment", "run_name") if getattr(options, name)]
        if refused:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in refused)
            raise SettingsError(f"--resume goes on with the run's own settings; leave out {named}")
        base = load_config_with_defaults(options.config, options.overrides)
        run = find_run(options.resume, Path(base.output_dir))
        return load_config_with_defaults(run.settings, options.overrides).with_absolute_paths(), run
    flags = {"data": options.data, "tracking.experiment": options.experiment, "run_name": options.run_name}
    overrides = [*options.overrides, *(f"{key}={quoted(value)}" for key, value in flags.items() if value)]
    settings = load_config_with_defaults(options.config, overrides).with_absolute_paths()
    name = settings.run_name or f"{settings.model_name}-{datetime.now():%Y%m%d-%H%M%S}"
    return settings, RunFolder(Path(settings.output_dir) / name)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m ray_jobs.train",
        description="Train a YOLO12 detector on X-rays: check the data, train one model on all workers, test it, draw "
        "samples, export ONNX, log to MLflow and register.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="settings; without it, defaults")
    parser.add_argument("--data", metavar="YAML", help="data.yaml in the Ultralytics format, a file or s3://bucket/...")
    parser.add_argument("--experiment", metavar="NAME", help="MLflow experiment (tracking.experiment)")
    parser.add_argument("--run-name", metavar="NAME", help="name of the run; model and time unless given")
    parser.add_argument("--resume", metavar="RUN", help="go on with an unfinished run, by name or path")
    parser.add_argument("--dry-run", action="store_true", help="check everything, say what would run, and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of --config")
    return parser.parse_intermixed_args(arguments)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As usual, with a hint for those who know Ultralytics' command line."""
        if "unrecognized arguments: --" in message:
            message += " (settings are written key=value, such as epochs=2)"
        super().error(message)


_EPILOG = """\
settings most people change (all of them: config/config.yaml):
  model_name=yolo12n    yolo12n, yolo12s, yolo12m, yolo12l, yolo12x: larger is better and slower
  epochs=100            patience=20 stops earlier where nothing improves
  img_size=640          pixels of the long side
  batch_size=16         images per step over all workers; 0.6 fills 60 % of each GPU
  device=auto           auto, cpu, or GPUs such as [0,1]
  pretrained=true       true, false, or a weights file
  cluster.num_workers=2 workers that train one model together
  tracking.registry=false  register nothing: for trials

results: runs/RUN/ with summary.json, results.csv, weights/best.pt, weights/best.onnx, samples/, plots/
"""

if __name__ == "__main__":
    run_job(main)
