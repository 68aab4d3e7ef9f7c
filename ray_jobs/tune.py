"""Search for better settings: many short trainings, of which the losers are stopped early.

    python -m ray_jobs.tune --config config/config.yaml --data config/data.yaml --tune config/tune.yaml
    python -m ray_jobs.tune --data data.yaml --tune config/tune.yaml --num-samples 40 --train-best model_name=yolo12s
    python -m ray_jobs.tune --resume RUN                          # go on, after Ctrl-C, a power cut, or a lost machine
    ray job submit --working-dir . -- python -m ray_jobs.tune --config config/config.yaml --tune config/tune.yaml

``key=value`` replaces training settings, ``tune.key=value`` settings of the search (``tune.scheduler.name=none``).
Exit codes: 0 done, 1 failed while running, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM (go on: --resume).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ray_jobs.entry import run_job
from ray_jobs.errors import SettingsError
from ray_jobs.flows.search.folder import SearchFolder, find_search
from ray_jobs.flows.search.preparation import prepare_search
from ray_jobs.flows.search.result import result_lines
from ray_jobs.flows.search.run import run_best_training, run_search
from ray_jobs.search.settings import SearchSettings, load_search_settings
from ray_jobs.search.space import Space
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.yaml_source import quoted


def main(arguments: Sequence[str]) -> int:
    """Search as told on the command line; 0 when everything is done."""
    began = time.time()
    options = _parse(arguments)
    settings, search, space, folder = _settings_and_folder(options)
    prepared = prepare_search(settings, search, space, folder, _say)
    summary = run_search(prepared, _say, sys.stdout.isatty(), began)
    if options.train_best:
        summary = run_best_training(prepared, summary, _say)
    _say("\n".join(result_lines(prepared, summary)))
    return 0


def _settings_and_folder(options: argparse.Namespace) -> tuple[Settings, SearchSettings, Space, SearchFolder]:
    training = [text for text in options.overrides if not text.startswith("tune.")]
    searching = [text.removeprefix("tune.") for text in options.overrides if text.startswith("tune.")]
    flags = {"budget.samples": options.num_samples, "max_concurrent": options.max_concurrent}
    searching += [f"{key}={value}" for key, value in flags.items() if value is not None]
    if options.resume:
        if options.data or options.run_name:
            raise SettingsError("--resume goes on with the search's own settings; leave out --data and --run-name")
        base = load_config_with_defaults(options.config, training)
        folder = find_search(options.resume, Path(base.output_dir))
        settings = load_config_with_defaults(folder.settings, training).with_absolute_paths()
        search, space = load_search_settings(options.tune or folder.search_settings, searching, settings)
        return settings, search, space, folder
    if not options.tune:
        raise SettingsError("which values to try is not said: give --tune, for example --tune config/tune.yaml")
    named = {"data": options.data, "run_name": options.run_name}
    training += [f"{key}={quoted(value)}" for key, value in named.items() if value]
    settings = load_config_with_defaults(options.config, training).with_absolute_paths()
    search, space = load_search_settings(options.tune, searching, settings)
    name = settings.run_name or f"search-{settings.model_name}-{datetime.now():%Y%m%d-%H%M%S}"
    return settings, search, space, SearchFolder(Path(settings.output_dir) / name)


def _say(line: str) -> None:
    print(line, flush=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.tune",
        description="Search for better settings: many short trainings, of which the losers are stopped early.",
        epilog="results: runs/RUN/ with best_config.yaml (for --config of ray_jobs.train), trials.csv, report.html, "
        "summary.json",
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="training settings; without it, defaults")
    parser.add_argument("--data", metavar="YAML", help="data.yaml in the Ultralytics format, a file or s3://bucket/...")
    parser.add_argument("--tune", type=Path, metavar="YAML", help="search space and rules: config/tune.yaml")
    parser.add_argument("--num-samples", type=int, metavar="N", help="trials (tune.budget.samples)")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (tune.max_concurrent)")
    parser.add_argument("--run-name", metavar="NAME", help="name of the search; model and time unless given")
    parser.add_argument("--resume", metavar="RUN", help="go on with an unfinished search, by name or path")
    parser.add_argument("--train-best", action="store_true", help="train with the best settings and register")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of the files")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    run_job(main)
