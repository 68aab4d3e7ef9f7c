"""From which score on a finding counts: what a detector brings along, and what a person says instead.

In: thresholds stored with a detector, by class, and a person's: one for all classes, or some by class. Out: one score
for each class, in the order of the classes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import BadInput, WeightsError
from ray_jobs.reading.finding import DEFAULT_THRESHOLD

Override = float | Mapping[str, float] | None
"""What a person may say instead: one score for every class, or scores by class name."""

FILE = "thresholds.json"  # beside best.pt, which has no room for them


def class_thresholds(
    names: Sequence[str], stored: Mapping[str, float], override: Override = None
) -> npt.NDArray[np.float32]:
    """The score in 0..1 above which each class counts, float32 ``(classes,)``.

    ``override`` goes before ``stored``, and 0.25 stands for classes without either. Raises BadInput for an override of
    classes that the detector does not have, or outside 0..1.
    """
    given = dict.fromkeys(names, override) if isinstance(override, int | float) else dict(override or {})
    problems = [
        f"threshold: the detector has no class {name!r}; it has {', '.join(names)}"
        for name in given
        if name not in names
    ]
    problems += [
        f"threshold: {name}: must lie in 0..1, got {score}" for name, score in given.items() if not 0 <= score <= 1
    ]
    if problems:
        raise BadInput(list(dict.fromkeys(problems)))
    merged = {**stored, **given}
    return np.array([merged.get(name, DEFAULT_THRESHOLD) for name in names], dtype=np.float32)


def parse_override(texts: Sequence[str]) -> Override:
    """``["0.3"]``, ``["Mass=0.3", "Nodule=0.1"]`` or ``[]`` as an override. Raises BadInput for anything else."""
    by_class: dict[str, float] = {}
    common: list[float] = []
    problems = []
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            score = float(number)
        except ValueError:
            score = math.nan
        if not 0 <= score <= 1:
            problems.append(f"threshold: {text!r}: must be a score in 0..1, or CLASS=SCORE")
        elif equals:
            by_class[name] = score
        else:
            common.append(score)
    if len(common) > 1 or (common and by_class):
        problems.append("threshold: give one score for all classes, or CLASS=SCORE as often as you like")
    if problems:
        raise BadInput(problems)
    return common[0] if common else by_class or None


def check_stored(stored: Any, names: Sequence[str], place: str) -> dict[str, float]:
    """Thresholds as they were read from a file. Raises WeightsError, naming ``place``, for what does not fit."""
    valid = isinstance(stored, dict) and all(
        name in names and isinstance(value, int | float) and 0 <= value <= 1 for name, value in stored.items()
    )
    if not valid:
        raise WeightsError(f"{place}: must give scores in 0..1 by class name, got {stored!r:.80}")
    return {name: float(value) for name, value in stored.items()}


def save_thresholds(thresholds: Mapping[str, float], path: Path) -> None:
    """Write thresholds by class, for a person and for ``load_thresholds``."""
    path.write_text(json.dumps(dict(thresholds), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_thresholds(weights: Path) -> dict[str, float]:
    """What ``thresholds.json`` beside a weights file says, for ``check_stored``; nothing where there is none.

    Raises WeightsError for a file that holds something else.
    """
    path = weights.with_name(FILE)
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: is no JSON ({error}); remove it, or copy it again from the run") from None
    return check_stored(stored, list(stored), str(path))
