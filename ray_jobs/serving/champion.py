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

from ray_jobs.errors import PlatformError, TrackingError
from ray_jobs.reading.thresholds import Override
from ray_jobs.serving.detector import Detector, find_detector, registry_uri
from ray_jobs.tracking.registered_model import SCHEME, find_version, parse_address

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
        self._trouble: tuple[str, str] | None = None  # what it is, and since when
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
        return "{} since {}".format(*self._trouble) if self._trouble else "ok"

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self._take_over()
                self._trouble = None
            # Whatever is wrong with the registry or with a new version, the one in use goes on reading and the next
            # look may see more; a thread that ended would tell nobody, and no champion would ever take over again.
            except Exception as error:
                self._report(error)

    def _take_over(self) -> None:
        version = find_version(registry_uri(self._uri), parse_address(self._model)).version
        if version == self.current.version:
            return
        started = time.perf_counter()
        fresh = self._load()
        before, self.current = self.current.version, fresh
        _log.info("took over version %s from %s after %.1f s", fresh.version, before, time.perf_counter() - started)

    def _report(self, error: Exception) -> None:
        silent = isinstance(error, TrackingError)
        kind = "no answer" if silent else f"what the alias points to cannot be taken over ({type(error).__name__})"
        if self._trouble is None or self._trouble[0] != kind:
            expected = isinstance(error, PlatformError)
            _log.warning("keeping version %s: %s", self.current.version, error, exc_info=None if expected else error)
            self._trouble = kind, datetime.now(UTC).isoformat(timespec="seconds")

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
