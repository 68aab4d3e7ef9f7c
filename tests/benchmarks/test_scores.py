"""Scores over seeds, both sides of a seed at once. The trainings stand in: what is tested is who trains what."""

from typing import Any


class StandIn:
    """Two trainings of a job."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, dict[str, Any]]] = []

    def ours(self, seed: int, **settings: Any) -> dict[str, float]:
        self.asked.append(("ours", seed, settings))
        return {"map50": 0.1 + seed}

    def peer(self, seed: int) -> dict[str, float]:
        self.asked.append(("peer", seed, {}))
        return {"map50": 0.2 + seed}


def test_every_seed_is_trained_by_both_and_ours_in_bf16() -> None:
    from scores import scores

    job: Any = StandIn()
    assert scores(job, seeds=2, minutes=9) == ([0.1, 1.1], [0.2, 1.2])
    assert sorted((side, seed) for side, seed, _ in job.asked) == [("ours", 0), ("ours", 1), ("peer", 0), ("peer", 1)]
    assert {settings["precision"] for side, _, settings in job.asked if side == "ours"} == {"bf16"}


def test_no_seed_is_begun_that_would_end_too_late() -> None:
    from scores import scores

    job: Any = StandIn()
    assert scores(job, seeds=5, minutes=0.0) == ([0.1], [0.2])
