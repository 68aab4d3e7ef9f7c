"""What the driver makes of the journal: a line for each event, and whether a run has workers."""

from pathlib import Path

import pytest

from ray_jobs.errors import DiskFull, StoreOutage, TrainingError
from ray_jobs.flows.controller_lines import describe, platform_error, root_cause
from ray_jobs.flows.hang_watch import StandStill
from ray_jobs.flows.journal import Event, JournalReader
from ray_jobs.flows.measures import cause_of
from ray_jobs.flows.trouble import EventSayer, waiting_since
from ray_jobs.settings import ClusterSettings


def states(*names: str) -> list[Event]:
    return [Event("state", float(at), name) for at, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "since"),
    [
        (["initializing"], 0.0),
        (["scheduling"], None),
        (["scheduling", "running"], None),
        (["scheduling", "running", "restarting", "scheduling"], None),  # it is trying for the first time
        (["scheduling", "running", "restarting", "scheduling", "rescheduling"], 2.0),
        (["scheduling", "running", "restarting", "scheduling", "rescheduling", "scheduling"], 2.0),
        (["scheduling", "running", "restarting"], 2.0),
        (["scheduling", "rescheduling", "scheduling", "running"], None),
        (["running", "preempting"], None),
    ],
)
def test_a_run_waits_when_it_found_no_room(names: list[str], since: float | None) -> None:
    assert waiting_since(states(*names)) == since


def test_each_event_is_said_once_and_faults_are_logged(tmp_path: Path) -> None:
    reader, said, logged = JournalReader(tmp_path / "journal.jsonl"), [], []
    sayer = EventSayer(reader, ClusterSettings(max_failures=2), said.append, logged.append)
    reader.events += [
        Event("state", 0, "scheduling", 2),
        Event("state", 1, "running"),
        Event("failure", 2, "rank 1: its process died"),
        Event("state", 3, "scheduling", 1),
    ]
    sayer()
    sayer()
    assert said == [
        "workers were lost: rank 1: its process died; they are started again (failure 1 of 2)",
        "going on with 1 worker(s) in place of 2: the same epoch, schedule and global batch, but no longer bit for bit "
        "what it would have been",
    ]
    assert logged == ["rank 1: its process died"]


def test_causes_in_words() -> None:
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
    from ray.train.v2.api.exceptions import ControllerError

    hung = WorkerHealthCheckTimeoutError("x")
    assert describe(1, hung) == "rank 1: did not answer for longer than cluster.hang_timeout_s"
    assert cause_of(describe(1, hung)) == "hung"
    dead = WorkerHealthCheckFailedError("x", RuntimeError("exit type: SYSTEM_ERROR"))
    assert describe(0, dead) == "rank 0: its process died (killed, or out of memory)"
    assert cause_of(describe(0, dead)) == "worker_died"
    memory = WorkerHealthCheckFailedError("Task was killed due to the node running low on memory", RuntimeError("x"))
    assert cause_of(describe(0, memory)) == "out_of_memory"
    node = WorkerHealthCheckFailedError("The actor died because its node has died", RuntimeError("x"))
    assert describe(0, node) == "rank 0: its node was lost"
    assert cause_of(describe(0, node)) == "node_lost"
    other = RuntimeError("gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:23177")
    assert describe(0, other) == "rank 0: lost its connection to another rank, which died or whose node was lost"
    assert cause_of(describe(0, other)) == "worker_died"
    still = "rank 0: no batch for 9 s (cluster.hang_timeout_s): it, or a rank that it waits for, stands still"
    assert describe(0, StandStill("no batch for 9 s (cluster.hang_timeout_s)")) == still
    assert cause_of(still) == "hung"
    assert describe(0, ValueError("first\nlast")) == "rank 0: ValueError: last"
    assert root_cause(TrainingError("no")) == "no"
    full = DiskFull("/disk: full")
    assert platform_error(ControllerError(full)) is full
    chained = RuntimeError("outer")
    chained.__cause__ = StoreOutage("away")
    assert isinstance(platform_error(chained), StoreOutage)
    assert platform_error(ValueError("x")) is None
