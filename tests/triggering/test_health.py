"""The health check: whoever asks, and however often, one question goes to each part, and all get an answer in time."""

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ray_jobs.errors import ClusterError
from ray_jobs.triggering import health
from ray_jobs.triggering.options import JobOptions, TriggerOptions


class Hanging:
    """A cluster that takes a question and does not answer."""

    def __init__(self) -> None:
        self.asked, self.let_go = 0, threading.Event()

    def all(self) -> list[object]:
        self.asked += 1
        self.let_go.wait(60)
        raise ClusterError("secret address")


def test_a_part_that_hangs_is_asked_once_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LIMIT_S", 0.5)
    job = JobOptions(data=tmp_path / "data.yaml", settings={"tracking.uri": "none"})
    options = TriggerOptions(runs=tmp_path, state=tmp_path, training=job, finetune=job)
    cluster = Hanging()
    check = health.HealthCheck(options, cluster, SimpleNamespace(problem=None))  # type: ignore[arg-type]

    async def crowd() -> list[health.Health]:
        answers = await asyncio.gather(*(check.ask() for _ in range(100)))
        monkeypatch.setattr(health, "LIMIT_S", 0.0)
        check._stale = time.monotonic()
        return [*answers, await check.ask()]

    answers = asyncio.run(crowd())
    assert cluster.asked == 1
    for answer in answers:
        assert not answer.ok
        assert answer.parts["ray"].detail.startswith("does not answer within")
    assert answers[0].parts["storage"].ok
    assert answers[0].parts["mlflow"].detail == "off"
    assert all(answer is answers[0] for answer in answers[:100])
    cluster.let_go.set()
    check._asked["ray"].result(timeout=30)
    check._stale, health.LIMIT_S = 0.0, 30.0
    assert asyncio.run(check.ask()).parts["ray"].detail == "ClusterError"
    check.close()
