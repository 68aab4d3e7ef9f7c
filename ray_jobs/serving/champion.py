"""Keeps the best detector in use: follows an alias in the registry and takes over what it points to.

In: a model as a person named it. Out: ``current``, which is replaced as a whole, after the new detector has read a
picture. Whoever has taken the old one keeps it until done, so no request notices.
"""

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ray_jobs.errors import PlatformError
from ray_jobs.reading.thresholds import Override
from ray_jobs.serving.detector import Detector, find_detector, registry_uri
from ray_jobs.tracking.fetch import SCHEME, current_version, parse_address

_log = logging.getLogger("ray.serve")


@dataclass(frozen=True, eq=False)
class InUse:
    """A detector with its name, as answers quote it."""

    detector: Detector
    name: str
    version: str


class Champion:
    """The detector in use; ``start`` begins to follow the alias, where the model is one."""

    def __init__(self, model: str, override: Override, tracking_uri: str | None, threads: int, poll_s: float) -> None:
        """Load the model. Raises the errors of ``find_detector``."""
        self._model, self._override, self._uri, self._threads = model, override, tracking_uri, threads
        self._poll_s = poll_s
        self._silent_since: str | None = None
        self._stop = threading.Event()
        self.current = self._load()

    def start(self) -> None:
        """Follow the alias in a thread of its own; a file or a fixed version is not followed."""
        if self._model.startswith(SCHEME) and parse_address(self._model).alias:
            threading.Thread(target=self._follow, daemon=True, name="champion").start()

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()

    @property
    def registry(self) -> str:
        """How the registry does, for people."""
        if not self._model.startswith(SCHEME):
            return "not used: the model is a file"
        return f"no answer since {self._silent_since}" if self._silent_since else "ok"

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                version = current_version(registry_uri(self._uri), parse_address(self._model))
                if version != self.current.version:
                    started = time.perf_counter()
                    fresh = self._load()
                    before, self.current = self.current.version, fresh
                    seconds = time.perf_counter() - started
                    _log.info("took over version %s from %s after %.1f s", fresh.version, before, seconds)
                self._silent_since = None
            except PlatformError as error:  # what is in use goes on reading; the next look may see more
                if self._silent_since is None:
                    _log.warning("keeping version %s: %s", self.current.version, error)
                    self._silent_since = datetime.now(UTC).isoformat(timespec="seconds")

    def _load(self) -> InUse:
        file = find_detector(self._model, self._override, self._uri)
        detector = file.load(self._threads)
        blank = detector.prepare(np.zeros((detector.image_size, detector.image_size), np.uint8))
        for size in (1, 8):  # onnxruntime plans its memory for each shape at the first call
            detector.find([blank] * size)
        name, _, version = file.name.removeprefix(SCHEME).rpartition("/")
        if not file.name.startswith(SCHEME):
            name, version = version, file.digest[:12]
        return InUse(detector, name, version)
