"""Measure how fast training runs on your data and your machine, and which settings make it fastest.

    python -m ray_jobs.benchmark --config config/config.yaml --data config/data.yaml
    python -m ray_jobs.benchmark --data data.yaml --batch-sizes 8,16,32 --precisions fp32,bf16 img_size=320
    ray job submit --working-dir . -- python -m ray_jobs.benchmark --config config/config.yaml --data config/data.yaml

Each point is a short training run on a part of the data, by the same workers as every run, without tracking, export or
registration; one that runs out of memory costs only itself. Batch sizes are tried first, then workers, then precision.
Exit codes: 0 done, 1 nothing could be trained, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from ray_jobs.entry import run_job
from ray_jobs.flows.benchmark.choices import Asked
from ray_jobs.flows.benchmark.run import BenchmarkFolder, run_benchmark
from ray_jobs.flows.benchmark.table import print_benchmark
from ray_jobs.settings import load_config_with_defaults
from ray_jobs.yaml_source import quoted


def main(arguments: Sequence[str]) -> int:
    """Measure as told on the command line; 0 when a setting can be recommended."""
    began = time.time()
    options = _parse(arguments)
    flags = {"data": options.data, "run_name": options.run_name}
    overrides = [*options.overrides, *(f"{key}={quoted(value)}" for key, value in flags.items() if value)]
    settings = load_config_with_defaults(options.config, overrides).with_absolute_paths()
    name = settings.run_name or f"benchmark-{settings.model_name}-{datetime.now():%Y%m%d-%H%M%S}"
    run = BenchmarkFolder(Path(settings.output_dir) / name)
    asked = Asked(options.batch_sizes, options.num_workers, options.workers, options.precisions)
    print_benchmark(run_benchmark(settings, asked, options.seconds, run, _say, began), run.path)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.benchmark",
        description="Measure how fast training runs here, on your data, and which settings make it fastest.",
        epilog="results: runs/RUN/ with benchmark.json, recommended.yaml (to paste into config.yaml), report.html",
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="training settings; without it, defaults")
    parser.add_argument("--data", metavar="YAML", help="data.yaml in the Ultralytics format, a file or s3://bucket/...")
    parser.add_argument("--run-name", metavar="NAME", help="name of the benchmark; model and time unless given")
    parser.add_argument("--batch-sizes", type=_numbers(1), default=(), metavar="N,N", help="batches to try")
    parser.add_argument("--num-workers", type=_numbers(1), default=(), metavar="N,N", help="cluster.num_workers to try")
    parser.add_argument("--workers", type=_numbers(0), default=(), metavar="N,N", help="loader processes to try (GPU)")
    parser.add_argument("--precisions", type=_precisions, default=(), metavar="P,P", help="of fp32, bf16, fp16")
    parser.add_argument("--seconds", type=_seconds, default=20.0, help="of training per point (default %(default)g)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of --config")
    return parser.parse_intermixed_args(arguments)


def _numbers(least: int) -> Callable[[str], list[int]]:
    def read(text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdigit() and int(part) >= least for part in parts):
            raise argparse.ArgumentTypeError(f"must be whole numbers of at least {least}, such as 8,16; got {text!r}")
        return sorted({int(part) for part in parts})

    return read


def _precisions(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= {"fp32", "bf16", "fp16"}:
        raise argparse.ArgumentTypeError(f"must be of fp32, bf16, fp16, such as fp32,bf16; got {text!r}")
    return parts


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 3600.0:
        raise argparse.ArgumentTypeError(f"must be 1 to 3600 seconds, got {text!r}")
    return seconds


if __name__ == "__main__":
    run_job(main)
