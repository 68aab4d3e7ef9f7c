"""When a trial goes on, stops, or waits for others: what every scheduler can do, and the two simplest ones.

In: each trial's score after every epoch, in the order of the journal. Out: a decision for that trial, and orders for
trials that wait. A scheduler's state is a function of what it was told, so replaying a journal restores it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ray_jobs.search.space import Value

Decision = Literal["continue", "stop", "pause"]


@dataclass(frozen=True)
class Order:
    """What becomes of a waiting trial: it goes on, or ``stop``. With a ``donor`` it goes on from that trial's
    checkpoint, with ``parameters``."""

    trial: int
    stop: bool = False
    donor: int | None = None
    parameters: Mapping[str, Value] | None = None


class Scheduler(Protocol):
    """Decides with what it was told so far. Trials are known by number, epochs count from 1, higher is better."""

    def suggested(self, trial: int, parameters: Mapping[str, Value]) -> None:
        """A trial exists."""

    def on_epoch(self, trial: int, epoch: int, score: float) -> Decision:
        """A trial has finished an epoch. ``pause``: it saves a checkpoint and waits for an order."""

    def orders(self) -> list[Order]:
        """What trials that wait should do now; the same until ``obeyed`` or ``ended`` is called."""

    def obeyed(self, order: Order) -> None:
        """A trial that waited goes on."""

    def ended(self, trial: int) -> None:
        """Nothing more comes from a trial: finished, stopped or failed."""


class NoScheduler:
    """Every trial runs to its last epoch."""

    def suggested(self, trial: int, parameters: Mapping[str, Value]) -> None:
        """Nothing."""

    def on_epoch(self, trial: int, epoch: int, score: float) -> Decision:  # noqa: ARG002 - the protocol
        """Always on."""
        return "continue"

    def orders(self) -> list[Order]:
        """None: nobody waits."""
        return []

    def obeyed(self, order: Order) -> None:
        """Nothing."""

    def ended(self, trial: int) -> None:
        """Nothing."""


class Asha(NoScheduler):
    """Asynchronous successive halving (Li et al., 2018, arXiv:1810.05934), deciding as Ray Tune's ``ASHAScheduler``.

    Rungs lie at ``grace``, ``grace * factor``, ``grace * factor^2`` ... epochs. A trial that reaches one stops unless
    it belongs to the best ``1 / factor`` of those that reached it before. Nobody ever waits.
    """

    def __init__(self, max_epochs: int, grace: int, factor: float) -> None:
        self.max_epochs, self.factor = max_epochs, factor
        self.rungs: list[tuple[float, dict[int, float]]] = []
        milestone = float(grace)
        while milestone < max_epochs:
            self.rungs.insert(0, (milestone, {}))
            milestone *= factor

    def on_epoch(self, trial: int, epoch: int, score: float) -> Decision:
        """Stop at a rung below its cutoff, else go on."""
        if epoch >= self.max_epochs:
            return "continue"  # it ends by itself
        for milestone, reached in self.rungs:  # from the highest
            if epoch < milestone:
                continue
            if trial in reached:
                return "continue"
            cutoff = np.percentile(list(reached.values()), (1 - 1 / self.factor) * 100) if reached else None
            reached[trial] = score
            return "stop" if cutoff is not None and score < cutoff else "continue"
        return "continue"
