"""How far a figure measured on a split can be trusted, and whether one model is really better than another.

In: ``MatchStatistics`` of one model, or of two on the same images. Out: intervals, or differences with their intervals.

Bootstrap: the split is drawn again many times with replacement, and the figures of each draw are computed. Patients are
drawn where it is known whose images they are, since the images of a patient resemble each other; otherwise images. Two
models are compared on the same draws (paired), so that what makes an image hard for both cancels out.

Intervals are bias-corrected percentiles (Efron 1981, Can J Stat 9:139-158). Plain percentiles are not good enough: the
AP of few images comes out too high, that of a draw, which has fewer different ones, higher still. Where 95 % of the
intervals of mAP50-95 should have held the truth (212 simulated images, 8 classes), 67 % of the plain ones did, and 89 %
of the corrected ones.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.detector.froc import RATES
from ray_jobs.detector.match_statistics import Figures, Floats, MatchStatistics
from ray_jobs.errors import DataError

LEVEL = 0.95
RESAMPLES = 1000
AT_ONCE = 250  # resamples that are computed together, which bounds the memory
RATE_NAMES = (*(f"{rate:g}" for rate in RATES), "mean")

Interval = tuple[float, float]
NORMAL = NormalDist()


@dataclass(frozen=True)
class Intervals:
    """95 % intervals (low, high) of the figures of an ``Evaluation``; None where there is too little to tell.

    ``over``: what was drawn, "patients" or "images", and ``drawn`` how many of them there are. ``per_class`` has
    ``map50`` and ``map50_95`` of each class; a class needs boxes in at least two patients (images) to have an interval.
    ``sensitivity`` is that of FROC, by false positives per image, and its mean.
    """

    over: str
    drawn: int
    resamples: int
    map50: Interval | None
    map50_95: Interval | None
    image_auc: Interval | None
    per_class: dict[str, dict[str, Interval | None]]
    sensitivity: dict[str, Interval | None]

    def added_to(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """``Evaluation.as_dict()`` with a ``..._ci`` beside each figure that has an interval, and ``ci``: how made."""
        per_class = {name: metrics["per_class"][name] | _named(of_class) for name, of_class in self.per_class.items()}
        own = _named({"map50": self.map50, "map50_95": self.map50_95, "image_auc": self.image_auc})
        made = {"level": LEVEL, "resamples": self.resamples, "over": self.over, "drawn": self.drawn}
        sensitivity = {"sensitivity_ci": {rate: _listed(interval) for rate, interval in self.sensitivity.items()}}
        return metrics | own | {"per_class": per_class, "froc": metrics["froc"] | sensitivity, "ci": made}


@dataclass(frozen=True)
class Difference:
    """The challenger's figure minus the champion's: ``value``, its 95 % interval, how likely it is to be above 0
    (``better``, 0..1), and the two-sided ``p_value`` of no difference, which is below 0.05 where the interval leaves
    out 0."""

    value: float
    low: float
    high: float
    better: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images: differences of mAP50, mAP50-95, mean FROC sensitivity, and AP50 of each class;
    None where the split has no boxes for it."""

    over: str
    drawn: int
    resamples: int
    map50: Difference | None
    map50_95: Difference | None
    sensitivity: Difference | None
    per_class: dict[str, Difference | None]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def patients_of(image_names: Sequence[str], pattern: str | None) -> list[str] | None:
    """Whose image each one is, by its file's name, as the data check reads it (``data_check.patient_id_pattern``: the
    first group, or all that it matches); an image that the pattern does not fit is a patient of its own. None: unknown.
    """
    if not pattern:
        return None
    compiled = re.compile(pattern)
    found = [compiled.search(name) for name in image_names]
    group = 1 if compiled.groups else 0
    return [f"={match[group]}" if match else name for match, name in zip(found, image_names, strict=True)]


def intervals(
    statistics: MatchStatistics, patients: Sequence[str] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Intervals:
    """Intervals of one model's figures. ``patients`` names whose image each one is; None: unknown."""
    units = _units(statistics, patients)
    once = statistics.measure(np.ones((1, statistics.images)))
    draws = _measure(statistics, units, resamples, seed)

    def interval(figure: str, shown_by: int, column: int | None = None) -> Interval | None:
        at = slice(None) if column is None else (slice(None), column)
        return _interval(getattr(once, figure)[at].item(), getattr(draws, figure)[at]) if shown_by >= 2 else None

    with_boxes = statistics.boxes.sum(axis=1) > 0
    anywhere = _count(units, with_boxes)
    both_kinds = min(anywhere, _count(units, ~with_boxes))
    per_class = {}
    for label, name in enumerate(statistics.names):
        shown_by = _count(units, statistics.boxes[:, label] > 0)
        per_class[name] = {
            "map50": interval("ap50", shown_by, label),
            "map50_95": interval("ap50_95", shown_by, label),
        }
    return Intervals(
        *_described(units, patients),
        resamples,
        interval("map50", anywhere),
        interval("map50_95", anywhere),
        interval("image_auc", both_kinds),
        per_class,
        {name: interval("sensitivity", anywhere, at) for at, name in enumerate(RATE_NAMES)},
    )


def compare(
    challenger: MatchStatistics,
    champion: MatchStatistics,
    patients: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """How much better the challenger is, by a paired bootstrap. Raises DataError where the two were measured on
    different images or classes."""
    if challenger.names != champion.names or not np.array_equal(challenger.boxes, champion.boxes):
        raise DataError("comparison: the models were not measured on the same images and classes; evaluate both again")
    units = _units(challenger, patients)
    ones = np.ones((1, challenger.images))
    own, other = challenger.measure(ones), champion.measure(ones)
    drawn, drawn_other = (_measure(model, units, resamples, seed) for model in (challenger, champion))

    def difference(figure: str, column: int | None = None) -> Difference | None:
        at = slice(None) if column is None else (slice(None), column)
        value = getattr(own, figure)[at] - getattr(other, figure)[at]
        return _difference(value.item(), getattr(drawn, figure)[at] - getattr(drawn_other, figure)[at])

    return Comparison(
        *_described(units, patients),
        resamples,
        difference("map50"),
        difference("map50_95"),
        difference("sensitivity", RATE_NAMES.index("mean")),
        {name: difference("ap50", label) for label, name in enumerate(challenger.names)},
    )


def _units(statistics: MatchStatistics, patients: Sequence[str] | None) -> npt.NDArray[np.intp]:
    """The number of the unit (patient or image) that each image belongs to."""
    if patients is None:
        return np.arange(statistics.images)
    if len(patients) != statistics.images:
        raise ValueError(f"{len(patients)} patients for {statistics.images} images")
    return np.unique(np.asarray(patients), return_inverse=True)[1]


def _described(units: npt.NDArray[np.intp], patients: Sequence[str] | None) -> tuple[str, int]:
    return "images" if patients is None else "patients", int(units.max()) + 1


def _count(units: npt.NDArray[np.intp], chosen: npt.NDArray[np.bool_]) -> int:
    return len(np.unique(units[chosen]))


def _measure(statistics: MatchStatistics, units: npt.NDArray[np.intp], resamples: int, seed: int) -> Figures:
    """The figures of each draw; the same draws for the same seed, images and patients."""
    random, count = np.random.default_rng(seed), int(units.max()) + 1
    parts = []
    for first in range(0, resamples, AT_ONCE):
        draws = random.multinomial(count, np.full(count, 1 / count), size=min(AT_ONCE, resamples - first))
        parts.append(vars(statistics.measure(draws[:, units])))
    return Figures(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _interval(value: float, draws: Floats) -> Interval | None:
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(draws):
        return None
    edge, shift = NORMAL.inv_cdf((1 + LEVEL) / 2), _shift(value, draws)
    low, high = np.quantile(draws, [NORMAL.cdf(2 * shift - edge), NORMAL.cdf(2 * shift + edge)])
    return float(low), float(high)


def _difference(value: float, draws: Floats) -> Difference | None:
    interval = _interval(value, draws)
    if interval is None:
        return None
    draws = draws[~np.isnan(draws)]
    # The very level at which 0 is the end of the interval.
    better = NORMAL.cdf(2 * _shift(value, draws) - NORMAL.inv_cdf(_share_below(0.0, draws)))
    return Difference(value, *interval, better, 2 * min(better, 1 - better))


def _shift(value: float, draws: Floats) -> float:
    """How far the draws lie beside the value that they were drawn around, in standard deviations of a normal
    distribution; limited so that an interval always holds the value itself."""
    edge = (1 - LEVEL) / 2
    return NORMAL.inv_cdf(min(max(_share_below(value, draws), edge), 1 - edge))


def _share_below(value: float, draws: Floats) -> float:
    """Never 0 or 1, since there might have been one more draw; draws that are equal count half."""
    return float(((draws < value).sum() + (draws == value).sum() / 2 + 0.5) / (len(draws) + 1))


def _named(figures: dict[str, Interval | None]) -> dict[str, list[float] | None]:
    return {f"{name}_ci": _listed(interval) for name, interval in figures.items()}


def _listed(interval: Interval | None) -> list[float] | None:
    return list(interval) if interval else None
