"""A run inside a run, such as a trial of a search: it shares the spool, the thread and the server of its parent.

In: metrics, tags and an end. Out: lines in the parent's spool that carry the child's name. Whatever is said again after
an interruption is not written again.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray_jobs.tracking.addresses import redact_value
from ray_jobs.tracking.spool import Record

MAX_TAG_LENGTH = 8000  # MLflow's limit, kept here so that what is sent twice is equal

_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")  # MLflow takes no other characters


class ChildTracker:
    """See ``Tracker.child``; methods return at once and never raise because of the server."""

    def __init__(
        self,
        name: str,
        append: Callable[[Record], None],
        points: dict[tuple[str | None, str, int], float],
        ended: dict[str, bool],
    ) -> None:
        self._name, self._append, self._points, self._ended = name, append, points, ended

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Metric points at ``step``; the first value of a point stays, a repeated epoch adds none."""
        values = {metric_name(key): float(value) for key, value in metrics.items()}
        new = {key: value for key, value in values.items() if (self._name, key, step) not in self._points}
        self._points.update({(self._name, key, step): value for key, value in new.items()})
        if new:
            self._append({"kind": "metrics", "child": self._name, "step": step, "time_ms": now_ms(), "values": new})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags; a later value replaces an earlier one."""
        self._append({"kind": "tags", "child": self._name, "values": plain_tags(tags)})

    def resume(self) -> None:
        """It ended, and goes on."""
        if self._ended[self._name]:
            self._append({"kind": "resume", "child": self._name, "time_ms": now_ms()})
            self._ended[self._name] = False

    def finish(self, status: str, tags: Mapping[str, Any]) -> None:
        """End it as FINISHED, FAILED or KILLED; a second end changes nothing."""
        if not self._ended[self._name]:
            self.set_tags(tags)
            self._append({"kind": "finish", "child": self._name, "status": status, "time_ms": now_ms()})
            self._ended[self._name] = True


class NullChild:
    """No tracking."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Nothing."""

    def resume(self) -> None:
        """Nothing."""

    def finish(self, status: str, tags: Mapping[str, Any]) -> None:
        """Nothing."""


def plain_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as text that MLflow takes, without secrets."""
    return {metric_name(key): redact_value(key, value)[:MAX_TAG_LENGTH] for key, value in tags.items()}


def metric_name(key: str) -> str:
    """A name that MLflow takes: ``metrics/mAP50(B)`` becomes ``metrics/mAP50B``, as in Ultralytics' own logs."""
    return _NOT_IN_A_NAME.sub("", key)


def now_ms() -> int:
    """Unix time in milliseconds, as MLflow counts."""
    return time.time_ns() // 1_000_000
