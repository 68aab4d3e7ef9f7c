"""What a benchmark found, as a table for a terminal, and the lines to paste into config.yaml."""

import sys
from pathlib import Path
from typing import Any

import yaml

COLUMNS = ("batch", "workers", "loaders", "precision", "images/s", "step", "waits", "validation", "memory", "start")


def row(point: dict[str, Any]) -> list[str]:
    """The cells of a point as benchmark.json has it, in the order of ``COLUMNS``."""
    setting = point["setting"]
    cells = [str(setting[key]) for key in ("batch_size", "num_workers", "workers", "precision")]
    if point["error"]:
        return [*cells, "failed", "", "", "", "", ""]
    return [
        *cells,
        f"{point['images_per_second']:.1f}",
        f"{point['step_seconds']:.3g} s",
        f"{point['data_wait']:.0%}",
        f"{point['val_seconds']:.1f} s",
        _memory(point),
        f"{point['startup_seconds']:.1f} s",
    ]


def _memory(point: dict[str, Any]) -> str:
    kinds = {"": point["memory_bytes"], " GPU": point["gpu_memory_bytes"]}
    return ", ".join(f"{value / 2**30:.1f} GiB{kind}" for kind, value in kinds.items() if value) or "–"


def print_benchmark(result: dict[str, Any], run: Path) -> None:
    """Print every point, the fastest one marked, and what is recommended."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    title = f"{result['model_name']}, {result['img_size']} px, {result['plan']}"
    table = Table(*COLUMNS, title=title, title_justify="left")
    for point in result["points"]:
        style = "bold" if point["setting"] == result["best"]["setting"] else None
        table.add_row(*row(point), style=style)
    console.print(table)
    for point in result["points"]:
        if point["error"]:
            console.print(f"failed: batch {point['setting']['batch_size']}: {point['error']}", markup=False)
    if run.is_relative_to(Path.cwd()):
        run = run.relative_to(Path.cwd())
    text = yaml.safe_dump(result["recommended"], sort_keys=False)
    console.print(f"{verdict(result)}\n\n{text}", markup=False, soft_wrap=True)
    console.print(f"recommended {run / 'recommended.yaml'}\nreport      {run / 'report.html'}", soft_wrap=True)


def verdict(result: dict[str, Any]) -> str:
    """What came of it in a sentence."""
    best, faster = result["best"], result["faster"]
    speed = f"{best['images_per_second']:.1f} images/s"
    if best["setting"] == result["points"][0]["setting"]:
        return f"What is configured is as fast as anything that was tried: {speed}. In config.yaml:"
    if faster is None:
        return f"What is configured failed; the fastest that works does {speed}. In config.yaml:"
    return f"The fastest does {speed}, {faster:.2f} times what is configured. In config.yaml:"
