"""Which parameters to try next: at random, every combination, or what a model of the trials so far suggests.

In: the scores of trials that ended. Out: parameters for the next trial. A suggestion depends on the seed, the trial's
number and what was told, not on how often the search was interrupted.
"""

import importlib.util
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ray_jobs.search.space import Range, Space, Value

Earlier = tuple[Mapping[str, Value], float]  # parameters and score of a trial of another search


class Searcher(Protocol):
    """Suggests parameters for trials, which are numbered from 1."""

    def suggest(self, number: int) -> dict[str, Value] | None:
        """Parameters for the next trial; None where there are no more."""

    def restore(self, number: int, parameters: Mapping[str, Value]) -> None:
        """A trial that was suggested before the search was interrupted."""

    def tell(self, number: int, score: float | None) -> None:
        """What a trial came to; None where it failed."""


class RandomSearcher:
    """``points`` first, then evenly over the space."""

    def __init__(self, space: Space, seed: int, points: Sequence[Mapping[str, Value]] = ()) -> None:
        self.space, self.seed, self.points = space, seed, points

    def suggest(self, number: int) -> dict[str, Value] | None:
        """A point; what it leaves open is drawn at random."""
        drawn = self.space.sample(random.Random(f"{self.seed}-{number}"))
        given = self.points[number - 1] if number <= len(self.points) else {}
        return drawn | dict(given)

    def restore(self, number: int, parameters: Mapping[str, Value]) -> None:
        """Nothing to remember."""

    def tell(self, number: int, score: float | None) -> None:
        """Nothing to learn."""


class GridSearcher(RandomSearcher):
    """Every combination once, ``points`` among them first."""

    def suggest(self, number: int) -> dict[str, Value] | None:
        """The combination of that number; None after the last."""
        points = [dict(point) for point in self.points]
        ordered = itertools.chain(points, (point for point in self.space.grid() if point not in points))
        return next(itertools.islice(ordered, number - 1, None), None)


class OptunaSearcher:
    """Optuna's samplers: ``tpe`` (Bergstra et al., 2011) or ``gp`` (a Gaussian process)."""

    def __init__(
        self,
        space: Space,
        seed: int,
        kind: str = "tpe",
        startup: int = 8,
        points: Sequence[Mapping[str, Value]] = (),
        earlier: Iterable[Earlier] = (),
    ) -> None:
        """``startup`` trials are drawn at random before the model is asked; ``earlier`` ones count among them."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.seed, self.kind, self.startup, self.points = seed, kind, startup, points
        self._distributions = _distributions(space)
        self._study = optuna.create_study(direction="maximize")
        self._asked: dict[int, Any] = {}
        for parameters, score in earlier:
            self._study.add_trial(
                optuna.trial.create_trial(params=dict(parameters), distributions=self._distributions, value=score)
            )

    def suggest(self, number: int) -> dict[str, Value] | None:
        """Ask the model; what a point leaves open is asked for too."""
        self._study.sampler = self._sampler(number)
        if number <= len(self.points):
            self._study.enqueue_trial(dict(self.points[number - 1]))
        trial = self._asked[number] = self._study.ask(self._distributions)
        return dict(trial.params)

    def restore(self, number: int, parameters: Mapping[str, Value]) -> None:
        """Ask for exactly these."""
        self._study.enqueue_trial(dict(parameters))
        self._asked[number] = self._study.ask(self._distributions)

    def tell(self, number: int, score: float | None) -> None:
        """Add the trial's result to the model; a failed one is no data."""
        from optuna.trial import TrialState

        failed = score is None or score in (float("inf"), float("-inf"))
        self._study.tell(self._asked.pop(number), None if failed else score, TrialState.FAIL if failed else None)

    def _sampler(self, number: int) -> Any:
        import optuna

        seed = random.Random(f"{self.seed}-{number}").getrandbits(31)
        if self.kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup)


def has_optuna() -> bool:
    """Whether the extra ``tune`` is installed."""
    return importlib.util.find_spec("optuna") is not None


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, Any] = {}
    for name, domain in space.domains.items():
        if not isinstance(domain, Range):
            made[name] = CategoricalDistribution(domain.values)
        elif domain.kind == "randint":
            made[name] = IntDistribution(int(domain.low), int(domain.high))
        else:
            made[name] = FloatDistribution(domain.low, domain.high, log=domain.kind == "loguniform")
    return made
