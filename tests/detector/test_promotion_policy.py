"""The promotion policy: every rule refuses by itself, and says why with the figures."""

from typing import Any

import pytest

from ray_jobs.detector.bootstrap import Comparison, Difference
from ray_jobs.detector.promotion import BetterOnTheSameImages, Evidence
from ray_jobs.settings import PromotionSettings

METRICS = {"map50": 0.4, "images": 100}


def difference(value: float, better: float = 0.99) -> Difference:
    return Difference(value, value - 0.05, value + 0.05, better, 2 * (1 - better))


def comparison(value: float = 0.08, better: float = 0.99, **changes: Any) -> Comparison:
    per_class: dict[str, Difference | None] = {"Mass": difference(0.1), "Nodule": difference(-0.04), "Rare": None}
    parts = {
        "over": "images",
        "drawn": 100,
        "resamples": 1000,
        "map50": difference(value, better),
        "map50_95": difference(0.01, 0.7),
        "sensitivity": difference(0.03, 0.96),
        "per_class": per_class,
    }
    return Comparison(**(parts | changes))


def decide(evidence: Evidence, **rules: Any) -> tuple[bool, str]:
    decision = BetterOnTheSameImages(PromotionSettings(**rules)).decide(evidence)
    assert decision.reasons
    return decision.promote, "\n".join(decision.reasons)


def test_better_with_no_class_lost_is_promoted() -> None:
    promote, why = decide(Evidence(METRICS, comparison=comparison()))
    assert promote
    assert why == (
        "better: mAP50 +0.0800 (95 % interval +0.0300 to +0.1300, better with probability 0.990, paired bootstrap "
        "over 100 images)"
    )


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(METRICS, comparison=comparison(better=0.94)), "not surely better: mAP50 +0.0800"),
        (Evidence(METRICS, comparison=comparison(-0.02, 0.2)), "not surely better: mAP50 -0.0200"),
        (Evidence(METRICS, comparison=comparison(0.0, 0.97)), "not surely better"),
        (Evidence(METRICS, comparison=comparison(per_class={"Mass": difference(-0.06)})), "Mass falls: AP50 -0.0600"),
        (Evidence(METRICS, "the ONNX model finds nothing", comparison()), "the ONNX model finds nothing"),
        (Evidence({**METRICS, "images": 19}, comparison=comparison()), "19 test images decide nothing"),
        (Evidence(METRICS, comparison=comparison(map50=None)), "nothing to compare"),
        (Evidence(METRICS, not_comparable="the champion finds other classes"), "the champion finds other classes"),
        (Evidence({**METRICS, "map50": 0.0}), "this model finds nothing on the test images"),
        (Evidence({**METRICS, "map50": None}), "this model finds nothing on the test images"),
        (Evidence(METRICS, "the ONNX model finds nothing"), "the ONNX model finds nothing"),
    ],
)
def test_each_rule_refuses_alone(evidence: Evidence, words: str) -> None:
    promote, why = decide(evidence)
    assert not promote
    assert words in why
    assert "\n" not in why


def test_all_reasons_are_given_at_once() -> None:
    worse = comparison(-0.2, 0.01, per_class={"Mass": difference(-0.3), "Nodule": difference(-0.1)})
    promote, why = decide(Evidence(METRICS, "the ONNX model differs", worse))
    assert not promote
    assert len(why.splitlines()) == 4


def test_the_first_model_is_promoted_for_finding_anything() -> None:
    promote, why = decide(Evidence(METRICS))
    assert promote
    assert why == "the first model of its name: mAP50 0.400 on 100 test images"


def test_the_rules_can_be_set() -> None:
    evidence = Evidence(METRICS, comparison=comparison())
    assert decide(evidence, metric="sensitivity")[0]
    assert not decide(evidence, metric="map50_95")[0]
    assert decide(evidence, metric="map50_95", probability=0.7)[0]
    assert not decide(evidence, max_class_drop=0.03)[0]
    assert not decide(evidence, min_images=101)[0]
