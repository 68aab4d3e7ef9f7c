"""Fine-tune a registered detector on new X-rays, and let it become the champion if it is better.

    python -m ray_jobs.retrain --from models:/xray-detector@champion --data config/finetune-data.yaml
    python -m ray_jobs.retrain --from models:/xray-detector/3 --data new/data.yaml --config config/retrain.yaml epochs=5
    python -m ray_jobs.train --resume RUN                                                 # go on after an interruption
    python -m ray_jobs.promote --run runs/RUN                                             # and decide then

A share of the old training images is mixed in against forgetting; val and test stay those of the old data, with what
the new data has of its own. Then the same pipeline as training, and the decision (``tracking.promotion``).
Exit codes: 0 done, promoted or not; 1 failed while running, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ray_jobs.entry import run_job
from ray_jobs.flows.display import open_display
from ray_jobs.flows.preparation import describe_plan, prepare
from ray_jobs.flows.promotion import decides, is_undecided, promote_finished, promote_run
from ray_jobs.flows.retraining import (
    FINE_TUNING,
    StartingModel,
    fetch_starting_model,
    fine_tuning_settings,
    mix_data,
)
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.flows.summary import print_summary
from ray_jobs.flows.training_run import run_training
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.yaml_source import quoted, read_yaml


def main(arguments: Sequence[str]) -> int:
    """Fine-tune as told on the command line; 0 when everything is done, whatever was decided."""
    began = time.time()
    options = _parse(arguments)
    settings, given = _settings(options)
    model = fetch_starting_model(settings, options.model)
    settings = fine_tuning_settings(settings, model, given)
    name = settings.run_name or f"{model.version.name.replace(' ', '_')}-{datetime.now():%Y%m%d-%H%M%S}"
    run = RunFolder(Path(settings.output_dir) / name)
    with tempfile.TemporaryDirectory(prefix="xray-mixture-") as scratch:
        folder = Path(scratch) if options.dry_run else run.path.parent / ".mixtures" / name
        if not options.dry_run and is_undecided(run, _on(settings, folder)):
            _say(f"{run.path}: is trained; deciding about it")
            promote_finished(run, _say)
            return 0
        settings = _mixed(settings, model, run, folder)
        prepared = prepare(settings, run, _say)
        if options.dry_run:
            _say("\n".join(["dry run: everything is in place", *describe_plan(prepared)]))
            return 0
    with open_display() as display:
        summary = run_training(prepared, display, began)
    print_summary(summary, run.path)
    if decides(settings):
        promote_run(settings, prepared.report.index, run, summary["registry"], _say)
    return 0


def _mixed(settings: Settings, model: StartingModel, run: RunFolder, folder: Path) -> Settings:
    """The settings with the mixed data set; that of an unfinished run of this name is kept as it is."""
    if run.exists:
        there = _on(settings, folder)
        run.check_free(there)
        return there
    return mix_data(settings, model, folder, _say)


def _on(settings: Settings, mixture: Path) -> Settings:
    return settings.model_copy(update={"data": str(mixture / "data.yaml"), "yolo_data_dir": None})


def _settings(options: argparse.Namespace) -> tuple[Settings, set[str]]:
    """The settings, and the top-level keys that the user gave."""
    flags = {"data": options.data, "run_name": options.run_name}
    overrides = [*options.overrides, *(f"{key}={quoted(value)}" for key, value in flags.items() if value)]
    settings = load_config_with_defaults(options.config, overrides, FINE_TUNING).with_absolute_paths()
    in_file = set(read_yaml(options.config).values) if options.config else set()
    return settings, in_file | {override.partition("=")[0].partition(".")[0].strip() for override in overrides}


def _say(line: str) -> None:
    print(line, flush=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.retrain",
        description="Fine-tune a registered detector on new X-rays: mix in old images, train, test, export, log, "
        "register, and promote if it is better.",
        epilog="settings as in config/retrain.yaml; those of training are all there (config/config.yaml)",
    )
    parser.add_argument("--from", dest="model", required=True, metavar="MODEL", help="models:/NAME@ALIAS or /VERSION")
    parser.add_argument(
        "--data", required=True, metavar="YAML", help="data.yaml of the new images; train alone will do"
    )
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="settings; without it, those of config/retrain.yaml"
    )
    parser.add_argument("--run-name", metavar="NAME", help="name of the run; model and time unless given")
    parser.add_argument("--dry-run", action="store_true", help="check everything, say what would run, and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of --config")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    run_job(main)
