"""When a challenger becomes the champion: the policy, and nothing of how it is carried out.

In: two models measured on the same test images, and whether the challenger's ONNX file agrees with it. Out: a
``Decision`` with its reasons in words and in numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray_jobs.detector.bootstrap import Comparison, Difference
from ray_jobs.settings import PromotionSettings

METRICS = {"map50": "mAP50", "map50_95": "mAP50-95", "sensitivity": "mean FROC sensitivity"}


@dataclass(frozen=True)
class Decision:
    """Whether to promote, why (each reason one line), and the figures that decided."""

    promote: bool
    reasons: list[str]
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"promote": self.promote, "reasons": self.reasons, "numbers": self.numbers}


@dataclass(frozen=True)
class Evidence:
    """What is known of a challenger.

    ``metrics``: its own figures on the test images (``Evaluation.as_dict()``). ``onnx_problem``: why its ONNX file does
    not agree with it, None where it does. ``comparison`` with the champion; None: there is no champion.
    ``not_comparable``: why a comparison was impossible.
    """

    metrics: Mapping[str, Any]
    onnx_problem: str | None = None
    comparison: Comparison | None = None
    not_comparable: str | None = None


class Policy(Protocol):
    """Decides."""

    def decide(self, evidence: Evidence) -> Decision:
        """Whether the challenger becomes the champion, and why."""


@dataclass(frozen=True)
class BetterOnTheSameImages:
    """Promotes a challenger that is better, loses no class, and is the model that will be used.

    - better: the difference of ``metric`` is above 0 on the test images, and in a paired bootstrap over them with a
      probability of at least ``probability`` (the level at which 0 is the end of the bias-corrected interval);
    - no class: AP50 of no class with boxes in the test split is lower by more than ``max_class_drop``;
    - the ONNX file, which is what is used, agrees with the trained model;
    - on at least ``min_images`` test images.

    The first model of a name has nothing to be better than: it is promoted if it finds anything at all and its ONNX
    file agrees.
    """

    rules: PromotionSettings

    def decide(self, evidence: Evidence) -> Decision:
        """Whether the challenger becomes the champion, and why."""
        against = [evidence.onnx_problem] if evidence.onnx_problem else []
        if evidence.metrics["images"] < self.rules.min_images:
            against.append(
                f"{evidence.metrics['images']} test images decide nothing: at least {self.rules.min_images} are needed"
            )
        if evidence.not_comparable:
            return Decision(False, [*against, evidence.not_comparable])
        if evidence.comparison is None:
            return self._first(evidence, against)
        difference: Difference | None = getattr(evidence.comparison, self.rules.metric)
        better, against_it = self._compare(difference, evidence.comparison)
        against += against_it + self._fallen(evidence.comparison)
        return Decision(not against, against or [better], _numbers(evidence.comparison))

    def _first(self, evidence: Evidence, against: list[str]) -> Decision:
        found = evidence.metrics["map50"]
        if not found:
            against.append("there is no champion yet, but this model finds nothing on the test images (mAP50 0)")
        words = f"the first model of its name: mAP50 {found or 0:.3f} on {evidence.metrics['images']} test images"
        return Decision(not against, against or [words])

    def _compare(self, difference: Difference | None, comparison: Comparison) -> tuple[str, list[str]]:
        name = METRICS[self.rules.metric]
        if difference is None:
            return "", [f"{name}: nothing to compare, the test images have no boxes"]
        words = (
            f"{name} {difference.value:+.4f} (95 % interval {difference.low:+.4f} to {difference.high:+.4f}, better "
            f"with probability {difference.better:.3f}, paired bootstrap over {comparison.drawn} {comparison.over})"
        )
        if difference.value > 0 and difference.better >= self.rules.probability:
            return f"better: {words}", []
        return "", [f"not surely better: {words}; {self.rules.probability:g} is wanted"]

    def _fallen(self, comparison: Comparison) -> list[str]:
        return [
            f"{label} falls: AP50 {change.value:+.4f}, and no class may lose more than {self.rules.max_class_drop:g}"
            for label, change in comparison.per_class.items()
            if change is not None and change.value < -self.rules.max_class_drop
        ]


def _numbers(comparison: Comparison) -> dict[str, Any]:
    return comparison.as_dict()
