"""HyperBand (Li et al., 2018, JMLR 18-185): brackets of successive halving, from eager to patient.

In: scores of trials at rungs. Out: at each rung of a bracket all its trials wait for the last one; the best
``1 / factor`` go on, the others stop.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ray_jobs.search.schedulers import Decision, Order
from ray_jobs.search.space import Value


@dataclass
class Bracket:
    """``rungs`` are the epochs after which it halves; ``level`` is the rung that a living member works towards."""

    rungs: list[int]
    members: list[int]
    level: dict[int, int] = field(default_factory=dict)
    arrived: dict[int, float] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)


class HyperBand:
    """Fills brackets with trials in the order of their numbers; ``trials`` is how many there will be in all."""

    def __init__(self, trials: int, max_epochs: int, grace: int, factor: float) -> None:
        self.factor = factor
        self.brackets = _brackets(trials, max_epochs, grace, factor)
        self._bracket_of = {number: bracket for bracket in self.brackets for number in bracket.members}

    def suggested(self, trial: int, parameters: Mapping[str, Value]) -> None:  # noqa: ARG002 - the protocol
        """It works towards its bracket's first rung."""
        self._bracket_of[trial].level[trial] = 0

    def on_epoch(self, trial: int, epoch: int, score: float) -> Decision:
        """Wait at a rung; go on or stop at once where the others have been waiting."""
        bracket = self._bracket_of[trial]
        level = bracket.level.get(trial, 0)
        if level >= len(bracket.rungs) or epoch < bracket.rungs[level]:
            return "continue"
        bracket.arrived[trial] = score
        self._halve(bracket)
        return "pause"

    def orders(self) -> list[Order]:
        """Those that go on, then those that stop."""
        return [order for bracket in self.brackets for order in bracket.orders]

    def obeyed(self, order: Order) -> None:
        """The trial works towards its next rung."""
        bracket = self._bracket_of[order.trial]
        bracket.orders = [other for other in bracket.orders if other.trial != order.trial]
        bracket.level[order.trial] += 1

    def ended(self, trial: int) -> None:
        """The others do not wait for it any more."""
        bracket = self._bracket_of[trial]
        bracket.orders = [other for other in bracket.orders if other.trial != trial]
        bracket.members = [number for number in bracket.members if number != trial]
        bracket.arrived.pop(trial, None)
        self._halve(bracket)

    def _halve(self, bracket: Bracket) -> None:
        """Decide where every member that is still on the lowest rung has arrived there."""
        if bracket.orders:
            return  # decided, and not all have heard it
        lowest = min((bracket.level.get(number, 0) for number in bracket.members), default=0)
        group = [number for number in bracket.members if bracket.level.get(number, 0) == lowest]
        if not group or not all(number in bracket.arrived for number in group):
            return
        ranked = sorted(group, key=lambda number: (-bracket.arrived[number], number))
        kept = ranked[: max(int(len(ranked) / self.factor), 1)]
        bracket.orders = [Order(number, stop=number not in kept) for number in ranked]
        for number in group:
            del bracket.arrived[number]


def _brackets(trials: int, max_epochs: int, grace: int, factor: float) -> list[Bracket]:
    """As many rounds of brackets as the trials fill; the last may be short."""
    steps = int(math.log(max_epochs / grace) / math.log(factor) + 1e-9)
    brackets: list[Bracket] = []
    first = 1
    while first <= trials:
        for s in range(steps, -1, -1):
            size = math.ceil((steps + 1) / (s + 1) * factor**s)
            members = list(range(first, min(first + size, trials + 1)))
            rungs = sorted({int(max_epochs / factor**k) for k in range(1, s + 1)})
            if members:
                brackets.append(Bracket([rung for rung in rungs if grace <= rung < max_epochs], members))
            first += size
    return brackets
