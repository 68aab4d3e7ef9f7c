"""Which values a benchmark tries, by what the user asks for, the cluster has, and the data set holds.

In: settings, the joined cluster. Out: the setting to start from, and the values of each kind; or ``BadInput``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ray_jobs.errors import BadInput
from ray_jobs.flows.benchmark.sweep import Setting
from ray_jobs.flows.preparation import Prepared
from ray_jobs.flows.ray_cluster import WorkerPlan, plan_workers, workers_that_fit

Value = TypeVar("Value", int, str)
_FIRST_BATCH = 16  # where the settings ask for a share of GPU memory


@dataclass(frozen=True)
class Asked:
    """What the user wants to be tried of each kind; empty: what makes sense here."""

    batch_sizes: Sequence[int] = ()
    num_workers: Sequence[int] = ()
    workers: Sequence[int] = ()
    precisions: Sequence[str] = ()


def choose(
    prepared: Prepared, asked: Asked, nodes: list[dict[str, float]]
) -> tuple[Setting, Mapping[str, Sequence[Any]]]:
    """The setting to start from and, in the order in which they are tried, the values of each kind.

    Raises ``BadInput`` for what this cluster or this data set cannot do.
    """
    settings, plan = prepared.settings, prepared.plan
    batch = settings.batch_size if isinstance(settings.batch_size, int) else _FIRST_BATCH * plan.max_workers
    start = Setting(
        _first(batch, asked.batch_sizes),
        _first(plan.max_workers, asked.num_workers),
        _first(settings.workers if plan.gpus else 0, asked.workers),
        _first(_precision(settings.precision, plan), asked.precisions),
    )
    images = len(prepared.report.index.splits["train"])
    _check(asked, start, images, prepared, nodes)
    choices: dict[str, Sequence[Any]] = {
        "batch_size": asked.batch_sizes or [size for size in _batches(start.batch_size, plan) if size <= images],
        "num_workers": asked.num_workers or [n for n in (1, 2, 4, 8, 16) if _fits(prepared, n, nodes)],
        "workers": asked.workers or _loaders(start.workers, plan),
        "precision": asked.precisions or (("bf16", "fp16") if plan.gpus else ("fp32", "bf16")),
    }
    return start, {
        kind: [value for value in values if value != getattr(start, kind)] for kind, values in choices.items()
    }


def _precision(configured: str, plan: WorkerPlan) -> str:
    """On a CPU ``auto`` decides by the length of a run, so that short ones would not show what it is worth."""
    return "fp32" if configured == "auto" and not plan.gpus else configured


def _first(configured: Value, asked: Sequence[Value]) -> Value:
    """What is configured, unless something else is asked for."""
    return configured if configured in asked or not asked else asked[0]


def _batches(batch: int, plan: WorkerPlan) -> list[int]:
    factors = (1, 2, 4, 8) if plan.gpus else (1, 2)
    return [max(batch // 2, 1), *(batch * factor for factor in factors)]


def _loaders(configured: int, plan: WorkerPlan) -> list[int]:
    """On a CPU Ultralytics loads images in the training process itself, whatever is asked for."""
    return sorted({0, configured, *(n for n in (2, 4, 8, 16) if n <= plan.cpus)}) if plan.gpus else []


def _fits(prepared: Prepared, workers: int, nodes: list[dict[str, float]]) -> bool:
    device = prepared.settings.device
    if isinstance(device, list):
        return workers == len(device)
    cluster = prepared.settings.cluster.model_copy(update={"num_workers": workers})
    # The batch is another matter: a multiple that can be shared is chosen with it.
    settings = prepared.settings.model_copy(update={"cluster": cluster, "batch_size": workers})
    return workers_that_fit(nodes, plan_workers(settings, nodes)) >= workers


def _check(asked: Asked, start: Setting, images: int, prepared: Prepared, nodes: list[dict[str, float]]) -> None:
    problems = [
        f"--batch-sizes: {size} is more than the {images} training images"
        for size in asked.batch_sizes
        if size > images
    ]
    if not asked.batch_sizes and start.batch_size > images:  # an epoch would have no step
        problems.append(f"batch_size: {start.batch_size} is more than the {images} training images")
    problems += [
        f"--num-workers: {count} do not find room: {_room(nodes)}"
        for count in asked.num_workers
        if not _fits(prepared, count, nodes)
    ]
    if any(asked.workers) and not prepared.plan.gpus:
        problems.append("--workers: without a GPU images are loaded in the training process itself; leave it out")
    if "fp16" in asked.precisions and not prepared.plan.gpus:
        problems.append("--precisions: fp16 needs a GPU; use fp32 and bf16")
    if problems:
        raise BadInput(problems)


def _room(nodes: list[dict[str, float]]) -> str:
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node(s)"
