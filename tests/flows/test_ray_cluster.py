"""How many workers with what a run gets, from what the nodes have; and Ray started on this machine."""

import subprocess
import sys

import pytest

from ray_jobs.errors import BadInput, ClusterError
from ray_jobs.flows import ray_cluster
from ray_jobs.flows.ray_cluster import WorkerPlan, plan_workers, workers_that_fit
from ray_jobs.settings import load_config_with_defaults

LAPTOP = [{"CPU": 8.0}]
TWO_GPU_NODES = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}]


def plan(nodes: list[dict[str, float]], *overrides: str) -> WorkerPlan:
    return plan_workers(load_config_with_defaults(None, overrides), nodes)


def test_auto_is_one_worker_without_gpus_and_one_per_gpu_with() -> None:
    assert plan(LAPTOP) == WorkerPlan(1, 1, 8, 0)
    assert plan(TWO_GPU_NODES) == WorkerPlan(4, 4, 8, 1)
    assert plan(TWO_GPU_NODES, "device=cpu") == WorkerPlan(1, 1, 16, 0)


def test_the_device_list_is_the_number_of_workers() -> None:
    assert plan([{"CPU": 16.0, "GPU": 2.0}], "device=[0,1]") == WorkerPlan(2, 2, 8, 1)


def test_a_range_is_elastic_and_cores_are_shared() -> None:
    assert plan(LAPTOP, "cluster.num_workers=[1,2]") == WorkerPlan(1, 2, 4, 0)
    assert plan([{"CPU": 1.0}, {"CPU": 1.0}], "cluster.num_workers=2") == WorkerPlan(2, 2, 1, 0)


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ([{"CPU": 32.0}, {"CPU": 32.0, "GPU": 4.0}], 4, 8),  # a head without GPUs lends no room
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}], 2, 8),
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 64.0, "GPU": 1.0}], 2, 16),
        ([{"CPU": 2.0}, {"CPU": 4.0}], 2, 2),
    ],
)
def test_unequal_nodes_have_room_for_what_was_planned(nodes: list[dict[str, float]], workers: int, cpus: int) -> None:
    planned = plan(nodes, f"cluster.num_workers={workers}")
    assert planned.cpus == cpus
    assert workers_that_fit(nodes, planned) >= workers


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["batch_size=15", "cluster.num_workers=2"], "15 cannot be shared evenly by 2 workers; use 14 or 16"),
        (["batch_size=1", "cluster.num_workers=2"], "use 2"),
        (["batch_size=16", "cluster.num_workers=[1,3]"], "16 cannot be shared evenly by 3 workers"),
        (["batch_size=0.6", "cluster.num_workers=[1,2]"], "0.6 is a share of GPU memory, so the global batch"),
        (["batch_size=0.5"], "share of GPU memory, but the run has no GPU"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        plan(LAPTOP, *overrides)


def test_workers_must_fit_onto_nodes_and_not_only_into_their_sum() -> None:
    assert workers_that_fit([{"CPU": 3.0}, {"CPU": 3.0}], WorkerPlan(3, 3, 2, 0)) == 2
    assert workers_that_fit(TWO_GPU_NODES, WorkerPlan(4, 4, 8, 1)) == 4


def test_a_plan_in_words() -> None:
    assert WorkerPlan(1, 1, 8, 0).describe() == "1 worker with 8 CPUs each"
    assert WorkerPlan(1, 4, 1, 1).describe() == "1 to 4 workers with 1 CPU and 1 GPU each"


class BusyMachine:
    """In place of ``ray.init``, which only a machine at its limit makes fail: leaves a process and raises, so often."""

    def __init__(self, failures: int) -> None:
        self.failures, self.left = failures, list[subprocess.Popen[bytes]]()

    def __call__(self, **_: object) -> None:
        if len(self.left) == self.failures:
            return
        self.left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        raise RuntimeError("The current node timed out during startup.\nSee its logs.")


def test_ray_is_started_a_second_time_where_the_machine_was_too_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = BusyMachine(failures=1)
    monkeypatch.setattr("ray.init", machine)
    ray_cluster._start()
    assert [process.wait(10) is not None for process in machine.left] == [True], "what was left is gone"


def test_a_machine_that_stays_too_busy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = BusyMachine(failures=2)
    monkeypatch.setattr("ray.init", machine)
    with pytest.raises(ClusterError, match=r"on this machine: The current node timed out during startup\.; try again"):
        ray_cluster._start()
    assert [process.wait(10) is not None for process in machine.left] == [True, True]
