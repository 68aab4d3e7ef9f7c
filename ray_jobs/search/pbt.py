"""Population based training (Jaderberg et al., 2017, arXiv:1711.09846), one generation after the other.

In: the population's scores after every ``interval`` epochs, when all wait for the last one. Out: the worst quarter goes
on with weights and optimizer of one of the best quarter, and with that one's parameters, changed a little.
"""

import random
from collections.abc import Mapping

from ray_jobs.search.schedulers import Decision, Order
from ray_jobs.search.space import Choice, Domain, Space, Value

# A checkpoint of another network, optimizer or number of steps per epoch cannot be gone on from.
NOT_CARRIED = ("model_name", "optimizer", "batch_size", "nbs", "img_size", "precision", "single_cls", "freeze")


class PopulationBasedTraining:
    """All ``trials`` together are the population. What is drawn at random depends on (seed, trial, epoch) alone."""

    def __init__(
        self,
        trials: int,
        space: Space,
        max_epochs: int,
        interval: int,
        quantile: float = 0.25,
        resample: float = 0.25,
        seed: int = 0,
    ) -> None:
        self.space, self.max_epochs, self.interval, self.seed = space, max_epochs, interval, seed
        self.quantile, self.resample = quantile, resample
        self._alive = set(range(1, trials + 1))
        self._parameters: dict[int, Mapping[str, Value]] = {}
        self._arrived: dict[int, float] = {}
        self._epoch = 0
        self._orders: list[Order] = []

    def suggested(self, trial: int, parameters: Mapping[str, Value]) -> None:
        """It joins the population with these parameters."""
        self._parameters[trial] = parameters

    def on_epoch(self, trial: int, epoch: int, score: float) -> Decision:
        """Wait for the others after every interval."""
        if epoch % self.interval or epoch >= self.max_epochs:
            return "continue"
        self._arrived[trial], self._epoch = score, epoch
        self._next_generation()
        return "pause"

    def orders(self) -> list[Order]:
        """Those that go on from another's checkpoint come first, so that it is still there."""
        return sorted(self._orders, key=lambda order: (order.donor is None, order.trial))

    def obeyed(self, order: Order) -> None:
        """The trial works towards the next generation."""
        self._orders = [other for other in self._orders if other.trial != order.trial]
        if order.parameters is not None:
            self._parameters[order.trial] = order.parameters

    def ended(self, trial: int) -> None:
        """The others do not wait for it any more."""
        self._alive.discard(trial)
        self._arrived.pop(trial, None)
        self._orders = [other for other in self._orders if other.trial != trial]
        self._next_generation()

    def _next_generation(self) -> None:
        if self._orders or not self._alive or not self._alive <= self._arrived.keys():
            return
        ranked = sorted(self._alive, key=lambda trial: (-self._arrived[trial], trial))
        count = min(max(int(len(ranked) * self.quantile), 1), len(ranked) // 2)
        best, worst = ranked[:count], ranked[len(ranked) - count :]
        for trial in ranked:
            rng = random.Random(f"{self.seed}-{trial}-{self._epoch}")
            if trial in worst:
                donor = rng.choice(best)
                self._orders.append(Order(trial, False, donor, self._explore(self._parameters[donor], rng)))
            else:
                self._orders.append(Order(trial))
        self._arrived.clear()

    def _explore(self, parameters: Mapping[str, Value], rng: random.Random) -> dict[str, Value]:
        return {name: self._changed(self.space.domains[name], value, rng) for name, value in parameters.items()}

    def _changed(self, domain: Domain, value: Value, rng: random.Random) -> Value:
        """A neighbour of a value: 0.8 or 1.2 times a number, the next or last one of a list; sometimes a new one."""
        if rng.random() < self.resample:
            return domain.sample(rng)
        step = rng.choice((-1, 1))
        if isinstance(domain, Choice):
            place = min(max(domain.values.index(value) + step, 0), len(domain.values) - 1)
            return domain.values[place]
        return domain.clip(float(value) * (1 + 0.2 * step))
