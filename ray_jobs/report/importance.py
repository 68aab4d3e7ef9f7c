"""How much each parameter of a search mattered, told from the trials alone.

In: each trial's parameters and score. Out: a share per parameter. Scores are replaced by their ranks, so that one lucky
trial does not decide. A number's effect may rise, fall, or have a best place in the middle: its share is how much of
the ranks' variance a parabola over the number's own rank explains (R² adjusted for the few trials, at least 0). For
words it is how much their means explain. The parameter that explains most comes first, the next one is asked for what
that one has left, and so on; so the shares add up to what all of them explain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FEWEST_TRIALS = 6  # fewer leave nothing after three coefficients of a parabola

Floats = npt.NDArray[np.floating[Any]]


def importance(trials: Sequence[Mapping[str, object]], scores: Sequence[float]) -> dict[str, float]:
    """Share in 0..1 of each parameter that took more than one value, largest first; empty where trials are too few.

    ``scores`` may be in any unit, higher or lower being better. Where a trial lacks a parameter, that is a value too.
    """
    if len(trials) < FEWEST_TRIALS:
        return {}
    names = list(dict.fromkeys(name for parameters in trials for name in parameters))
    tables = {name: _table([trial.get(name) for trial in trials]) for name in names}
    tables = {name: table for name, table in tables.items() if table.shape[1] > 1}
    left = _ranks(scores)
    whole = float(((left - left.mean()) ** 2).sum())
    shares: dict[str, float] = {}
    while tables:
        fits = {name: table @ np.linalg.lstsq(table, left, rcond=None)[0] for name, table in tables.items()}
        explained = {name: _explained(left, fits[name], tables[name].shape[1]) for name in tables}
        name = max(explained, key=lambda one: explained[one])
        share = explained[name] * float(((left - left.mean()) ** 2).sum()) / whole if whole else 0.0
        shares[name] = share
        if share:
            left = left - fits[name]
        del tables[name]
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def is_number(value: object) -> bool:
    """Whether a value has an order: true and false have none here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table(values: Sequence[object]) -> Floats:
    """(trials, coefficients): powers of a number's rank, or one column for each word."""
    if not all(map(is_number, values)):
        words = sorted(set(map(str, values)))
        return np.array([[float(str(value) == word) for word in words] for value in values])
    place = _ranks([float(value) for value in values])  # type: ignore[arg-type]
    place = (place - place.mean()) / max(float(np.ptp(place)), 1.0)
    return np.stack([np.ones_like(place), place, place**2][: len(np.unique(place))], axis=1)


def _explained(values: Floats, fitted: Floats, coefficients: int) -> float:
    """Adjusted R², at least 0."""
    total, freedom = float(((values - values.mean()) ** 2).sum()), len(values) - coefficients
    if total < 1e-9 or freedom < 1:
        return 0.0
    return max(0.0, 1 - float(((values - fitted) ** 2).sum()) / freedom / (total / (len(values) - 1)))


def _ranks(values: Sequence[float]) -> Floats:
    """Ranks from 0; equal values share their mean rank."""
    _, place, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]
