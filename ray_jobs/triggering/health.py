"""Whether the parts that the service needs are there, each asked for real and within seconds.

In: the options. Out: a word on each part. What an answer to strangers holds is no more than that.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow

from ray_jobs.errors import PlatformError
from ray_jobs.settings import load_config_with_defaults
from ray_jobs.storage import FolderStorage, open_storage
from ray_jobs.tracking.addresses import TRACKING_OFF, resolve_uri
from ray_jobs.tracking.client import probe
from ray_jobs.triggering.messages import Health, Part
from ray_jobs.triggering.options import TriggerOptions
from ray_jobs.triggering.ray_jobs_api import RayJobs
from ray_jobs.triggering.watcher import Watcher

LIMIT_S = 12.0


class HealthCheck:
    """Asks the parts, at most one question to each at a time."""

    def __init__(self, options: TriggerOptions, jobs: RayJobs, watcher: Watcher) -> None:
        self._options, self._jobs, self._watcher = options, jobs, watcher
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="health")
        self._asked: dict[str, Future[str]] = {}

    def ask(self) -> Health:
        """Ask every part and wait for the answers, no longer than ``LIMIT_S``."""
        questions = {"ray": self._ray, "mlflow": self._mlflow, "storage": self._storage}
        for name, question in questions.items():
            if name not in self._asked or self._asked[name].done():
                self._asked[name] = self._pool.submit(question)
        parts = {name: _answer(self._asked[name]) for name in questions}
        problem = self._watcher.problem
        parts["watch"] = Part(ok=problem is None, detail="looks" if problem is None else "fails; GET /watch says why")
        return Health(ok=all(part.ok for part in parts.values()), parts=parts)

    def close(self) -> None:
        """Stop asking."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ray(self) -> str:
        self._jobs.all()
        return "answers"

    def _mlflow(self) -> str:
        training = self._options.training
        settings = load_config_with_defaults(training.config if training.config and training.config.is_file() else None)
        uri = training.settings.get("tracking.uri") or settings.tracking.uri
        if uri in TRACKING_OFF:
            return "off"
        probe(resolve_uri(str(uri) if uri else None, self._options.runs))
        return "answers"

    def _storage(self) -> str:
        FolderStorage(self._options.state).probe()
        if url := self._options.training.settings.get("storage.url"):
            open_storage(str(url), self._options.runs).probe()
        return "can be written"


def _answer(asked: "Future[str]") -> Part:
    try:
        return Part(ok=True, detail=asked.result(timeout=LIMIT_S))
    except TooSlow:
        return Part(ok=False, detail=f"does not answer within {LIMIT_S:g} s")
    except PlatformError as error:
        return Part(ok=False, detail=type(error).__name__)  # the message may name addresses
