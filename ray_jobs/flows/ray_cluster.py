"""The Ray cluster that a run trains on: found or started, asked what it has, and waited for.

In: cluster settings. Out: a connection, and how many workers with which resources a run gets.
"""

import contextlib
import logging
import math
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray_jobs.dataset.parallel import available_cores
from ray_jobs.errors import BadInput, ClusterError
from ray_jobs.settings import ClusterSettings, Settings

_POLL_S = 1.0
_started_here = False  # Ray, by this process, which it ends with
START_TIMEOUT_S = 6.0  # how long Ray Train waits for room before it counts the nodes anew


@dataclass(frozen=True)
class WorkerPlan:
    """``min_workers`` to ``max_workers`` workers, each with ``cpus`` cores and ``gpus`` GPUs."""

    min_workers: int
    max_workers: int
    cpus: int
    gpus: float

    def describe(self) -> str:
        """``2 workers with 1 CPU each``."""
        span = str(self.max_workers)
        if self.min_workers != self.max_workers:
            span = f"{self.min_workers} to {self.max_workers}"
        kinds = [f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}"]
        if self.gpus:
            kinds.append(f"{self.gpus:g} GPU{'s' if self.gpus > 1 else ''}")
        return f"{span} worker{'s' if self.max_workers > 1 else ''} with {' and '.join(kinds)} each"


def rank_timeout_s(settings: Settings) -> int:
    """How many seconds the ranks of one training wait for each other.

    Rank 0 may wait for a store meanwhile; a rank that stands still for no reason is found otherwise.
    """
    return math.ceil(settings.cluster.hang_timeout_s + settings.storage.patience_s) + 1800


def cluster_address(cluster: ClusterSettings) -> str | None:
    """The cluster to join; None: Ray is started inside this process."""
    return cluster.address or os.environ.get("RAY_ADDRESS") or None


def prepare_environment(cluster: ClusterSettings) -> None:
    """Set what Ray reads when it is imported; call it before anything imports Ray.

    Ray inside this process gets a token of its own: left alone, Ray writes one into the user's home, and every
    cluster started there later would use it.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")  # Ray's 2 s would set the pace of short epochs
    # With Ray's 60 s, a run that lost a node would wait a minute for it before it shrinks.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{START_TIMEOUT_S:g}")
    if cluster.hang_timeout_s > 0:
        os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", f"{cluster.hang_timeout_s:g}")
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")  # Ray's 5 s are a part of a short notice
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets every other process on the machine go first
    if cluster_address(cluster) is None:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes nodes away from this process
    if cluster_address(cluster) is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def connect(settings: Settings) -> None:
    """Join the cluster, or start Ray on this machine alone. Raises ``ClusterError`` where it cannot be reached."""
    global _started_here
    prepare_environment(settings.cluster)
    import ray

    address = cluster_address(settings.cluster)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if ray.is_initialized():
        return
    if address is None:
        gpus = _choose_gpus(settings.device)
        stop_handler = signal.getsignal(signal.SIGTERM)
        _start(num_cpus=available_cores(), num_gpus=gpus, include_dashboard=False, **quiet)
        _keep(stop_handler)
        _started_here = True
        return
    if address.startswith("ray://"):
        raise BadInput(f"cluster.address: {address}: a run must start on a node of its cluster; use ray job submit")
    stop_handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises many kinds for a cluster that is not there
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"cluster.address: {address}: no Ray cluster can be joined there: {reason}") from None
    _keep(stop_handler)
    _started_here = False


def _start(**options: Any) -> None:
    """Start Ray here, a second time where the machine was too busy for the 30 s that Ray gives its own processes."""
    import psutil
    import ray

    before = set(psutil.Process().children())
    for last in (False, True):
        try:
            ray.init(address="local", **options)
            return
        except Exception as error:  # Ray raises a plain one, and leaves running what it had started
            left = set(psutil.Process().children()) - before
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(list(left), timeout=10)
            if last:
                reason = str(error).strip().splitlines()[0]
                raise ClusterError(f"Ray could not be started on this machine: {reason}; try again") from error


def is_alone() -> bool:
    """Whether Ray was started by ``connect`` for this process alone."""
    return _started_here


def _keep(stop_handler: Any) -> None:
    """Put back what SIGTERM did before Ray took it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop_handler)


def _choose_gpus(device: str | list[int]) -> int | None:
    """How many GPUs Ray inside this process may use; None: all it sees. A list makes only those visible.

    Raises ``BadInput`` for GPUs that are not there.
    """
    if isinstance(device, str):
        return 0 if device == "cpu" else None
    import torch

    present = torch.cuda.device_count()
    if max(device) >= present:
        raise BadInput(f"device: {device}: this machine shows {present} GPU(s), numbered from 0; or use device: cpu")
    visible = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[gpu] if visible else str(gpu) for gpu in device)
    return len(device)


def plan_workers(settings: Settings, nodes: list[dict[str, float]]) -> WorkerPlan:
    """How many workers with what, on nodes with these resources (``CPU``, ``GPU``).

    Raises ``BadInput`` where the batch cannot be shared.
    """
    cluster = settings.cluster
    all_gpus = int(sum(node.get("GPU", 0) for node in nodes))
    use_gpus = isinstance(settings.device, list) or (all_gpus > 0 and settings.device != "cpu")
    gpus = cluster.gpus_per_worker if cluster.gpus_per_worker is not None else float(use_gpus)
    low, high = wanted_workers(settings) or (max(int(all_gpus / gpus), 1) if gpus else 1,) * 2
    cpus = cluster.cpus_per_worker or _share_of_cores(nodes, high, gpus)
    check_batch(settings.batch_size, low, high)
    if isinstance(settings.batch_size, float) and not gpus:
        raise BadInput(
            f"batch_size: {settings.batch_size} is a share of GPU memory, but the run has no GPU; give a number"
        )
    return WorkerPlan(low, high, cpus, gpus)


def _share_of_cores(nodes: list[dict[str, float]], workers: int, gpus: float) -> int:
    """The most cores that each of the workers can have with all of them finding room."""
    most = int(max((node.get("CPU", 0) for node in nodes), default=1))
    shares = range(most, 0, -1)
    return next((n for n in shares if workers_that_fit(nodes, WorkerPlan(workers, workers, n, gpus)) >= workers), 1)


def wanted_workers(settings: Settings) -> tuple[int, int] | None:
    """The least and the most workers that the settings ask for; None where that is left to the cluster."""
    if isinstance(settings.device, list):
        return len(settings.device), len(settings.device)
    wanted = settings.cluster.num_workers
    if isinstance(wanted, list):
        return wanted[0], wanted[1]
    return None if isinstance(wanted, str) else (wanted, wanted)


def check_batch(batch_size: int | float, low: int, high: int) -> None:
    """Raise ``BadInput`` where the global batch cannot be shared evenly by ``low`` to ``high`` workers."""
    if isinstance(batch_size, float):
        if low != high:
            raise BadInput(
                f"batch_size: {batch_size} is a share of GPU memory, so the global batch would depend on which of "
                f"cluster.num_workers [{low}, {high}] there are; give a number of images, or one number of workers"
            )
        return
    uneven = [count for count in range(low, high + 1) if batch_size % count]
    if low == high and uneven:
        below, above = batch_size // high * high, -(-batch_size // high) * high
        nearest = f"{below} or {above}" if below else f"{above}"
        raise BadInput(f"batch_size: {batch_size} cannot be shared evenly by {high} workers; use {nearest}")
    if uneven:
        raise BadInput(
            f"batch_size: {batch_size} cannot be shared evenly by {', '.join(map(str, uneven))} workers, which "
            f"cluster.num_workers [{low}, {high}] allows"
        )


def live_nodes() -> list[dict[str, float]]:
    """The resources of each living node of the joined cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def workers_that_fit(nodes: list[dict[str, float]], plan: WorkerPlan) -> int:
    """How many workers of a plan the nodes could hold if they were empty."""
    fits = 0
    for node in nodes:
        rooms = [node.get("CPU", 0) // plan.cpus]
        if plan.gpus:
            rooms.append(node.get("GPU", 0) // plan.gpus)
        fits += int(min(rooms))
    return fits


def wait_for_workers(settings: Settings, say: Callable[[str], None]) -> WorkerPlan:
    """Wait until the joined cluster is large enough for the run, saying what is missing.

    Raises ``ClusterError`` after ``cluster.wait_s`` seconds. A cluster of one's own process cannot grow: no wait.
    """
    deadline = time.monotonic() + settings.cluster.wait_s
    said = ""
    while True:
        nodes = live_nodes()
        plan = plan_workers(settings, nodes)
        fits = workers_that_fit(nodes, plan)
        if fits >= plan.min_workers:
            return plan
        has = f"{sum(n.get('CPU', 0) for n in nodes):g} CPUs and {sum(n.get('GPU', 0) for n in nodes):g} GPUs"
        missing = f"{plan.describe()}: the cluster has {has} on {len(nodes)} node(s), room for {fits}"
        if cluster_address(settings.cluster) is None:
            raise ClusterError(f"this machine cannot hold {missing}; lower cluster.num_workers or join a cluster")
        if time.monotonic() > deadline:
            waited = f"waited {settings.cluster.wait_s:g} s for {missing}"
            raise ClusterError(f"{waited}; add nodes, lower cluster.num_workers, or raise cluster.wait_s")
        if missing != said:
            say(f"waiting for {missing}")
            said = missing
        time.sleep(_POLL_S)


def missing_room(plan: WorkerPlan) -> str | None:
    """What the joined cluster lacks for a plan's least number of workers, in words; None where it lacks nothing."""
    import ray

    nodes = live_nodes()
    fits = workers_that_fit(nodes, plan)
    has = f"{sum(n.get('CPU', 0) for n in nodes):g} CPUs and {sum(n.get('GPU', 0) for n in nodes):g} GPUs"
    if fits < plan.min_workers:
        return f"{plan.describe()}: the cluster has {has} on {len(nodes)} node(s), room for {fits}"
    free = ray.available_resources()
    if workers_that_fit([free], plan) < plan.min_workers:
        busy = f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs of {has} are free"
        return f"{plan.describe()}: the cluster is busy, {busy}"
    return None
