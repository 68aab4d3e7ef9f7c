"""What a finished run amounts to, in words that a person can act on.

In: the figures of the assessed split, the epochs, the settings. Out: a sentence or two, and what to do next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ray_jobs.flows.journal import Epoch

Trend = Literal["rising", "level", "falling", "unknown"]

FEWEST_EPOCHS = 5  # fewer tell nothing about a trend
NOTHING = 0.02  # an mAP50 below it is no better than boxes drawn at random
WIDE = 0.15  # an interval that is wider leaves the question open
FEW_BOXES = 100  # training boxes of a class, below which more would probably help


@dataclass(frozen=True)
class Verdict:
    """``sentence`` comes first on the page, ``advice`` below it; ``tone``: good, fair or poor."""

    sentence: str
    advice: list[str]
    tone: Literal["good", "fair", "poor"]


def judge(
    measured: Mapping[str, Any], split: str, epochs: Sequence[Epoch], best: int, wanted: int, trained: Mapping[str, int]
) -> Verdict:
    """``measured``: the figures of ``summary.json``; ``best``: the number of the best epoch of ``wanted``; ``trained``:
    training boxes by class."""
    trend = trend_of([epoch.metrics.get("val/map50_95", 0.0) for epoch in epochs])
    advice = [*_about_epochs(trend, epochs, best, wanted), *_about_classes(measured, split, trained)]
    if measured["map50"] is None:
        sentence = f"Nothing could be measured: the {split} split has no boxes."
        return Verdict(sentence, [f"Add labelled X-rays to the {split} split.", *advice], "poor")
    where = f"on {measured['images']} {split} images"
    interval = measured.get("map50_ci")
    span = f" (95\u00a0% interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    if measured["map50"] < NOTHING:
        sentence = f"Has learned next to nothing yet: mAP50 {measured['map50']:.3f} {where}."
        longer = f"Train for more than {epochs[-1].number} epochs, and start from pretrained weights (pretrained=true)."
        return Verdict(sentence, [longer], "poor")
    sensitivity = measured["froc"]["sensitivity"]["1"]
    parts = [
        f"Finds {100 * sensitivity:.0f}\u00a0% of the true boxes at one false alarm per image; "
        f"mAP50 {measured['map50']:.2f}{span} {where}."
    ]
    ranked = ranked_classes(measured)
    if len(ranked) > 1:
        parts.append(f"Weakest is {ranked[-1]} (AP50 {measured['per_class'][ranked[-1]]['map50']:.2f}).")
    if words := {"rising": "Still improving when training ended.", "falling": "Past its best when training ended."}.get(
        trend
    ):
        parts.append(words)
    if interval and interval[1] - interval[0] > WIDE:
        advice.append(
            f"Do not trust small differences: with this {split} split mAP50 is known to about "
            f"± {(interval[1] - interval[0]) / 2:.2f}. More {split} images would narrow it."
        )
    return Verdict(" ".join(parts), advice, "fair" if advice else "good")


def trend_of(scores: Sequence[float]) -> Trend:
    """Whether the best score of the last fifth of the epochs beats all before by 2 %, or has lost 15 % of it."""
    if len(scores) < FEWEST_EPOCHS:
        return "unknown"
    last = max(2, len(scores) // 5)
    before, end = max(scores[:-last]), scores[-last:]
    if max(end) > before * 1.02 + 0.001:
        return "rising"
    return "falling" if before > 0 and max(end) < 0.85 * before else "level"


def ranked_classes(measured: Mapping[str, Any]) -> list[str]:
    """The classes that have boxes in the split, best AP50 first."""
    known = [
        (figures["map50"], name) for name, figures in measured["per_class"].items() if figures["map50"] is not None
    ]
    return [name for _, name in sorted(known, key=lambda pair: -pair[0])]


def _about_epochs(trend: Trend, epochs: Sequence[Epoch], best: int, wanted: int) -> list[str]:
    ran = epochs[-1].number
    if trend == "rising":
        return [f"Train longer: the validation score still rose in the last fifth of the {ran} epochs."]
    if trend == "falling":
        return [f"More epochs will not help: epoch {best} of {ran} was best, and best.pt is from there."]
    if trend == "unknown":
        return [f"Train longer: {ran} epoch{'s' * (ran > 1)} say little about what this model can learn."]
    return [f"Stopped after {ran} of {wanted} epochs, because none since epoch {best} was better."] * (ran < wanted)


def _about_classes(measured: Mapping[str, Any], split: str, trained: Mapping[str, int]) -> list[str]:
    per_class = measured["per_class"]
    unknown = [name for name, figures in per_class.items() if figures["map50"] is None]
    lines = []
    if unknown and len(unknown) < len(per_class):
        lines.append(f"Nothing is known about {', '.join(unknown)}: no such box in the {split} split.")
    ranked = ranked_classes(measured)
    weak = [name for name in ranked if per_class[name]["map50"] < 0.75 * measured["map50"]]
    for name in reversed(weak[-2:]):
        few = trained.get(name, 0)
        if few < FEW_BOXES:
            lines.append(f"Label more {name}: the model has seen {few} boxes of it, and finds it worst.")
        else:
            lines.append(f"Look at the missed {name} below: with {few} training boxes the number is not what it lacks.")
    return lines
