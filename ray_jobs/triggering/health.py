"""Whether the parts that the service needs are there, each asked for real and within seconds.

In: the options. Out: a word on each part. What an answer to strangers holds is no more than that.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ray_jobs.storage import FolderStorage, open_storage
from ray_jobs.tracking.addresses import TRACKING_OFF, resolve_uri
from ray_jobs.tracking.client import probe
from ray_jobs.triggering.messages import Health, Part
from ray_jobs.triggering.options import TriggerOptions
from ray_jobs.triggering.ray_jobs_api import RayJobs
from ray_jobs.triggering.watcher import Watcher

LIMIT_S = 3.5  # for all parts together
FRESH_S = 10.0  # how long an answer is given again


class HealthCheck:
    """Asks the parts, at most one question to each at a time, in threads of its own: whoever may ask without a token
    can keep nothing of the service busy."""

    def __init__(self, options: TriggerOptions, jobs: RayJobs, watcher: Watcher) -> None:
        self._options, self._jobs, self._watcher = options, jobs, watcher
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="health")
        self._asked: dict[str, Future[Part]] = {}
        self._round: asyncio.Task[Health] | None = None
        self._stale = 0.0

    async def ask(self) -> Health:
        """What the parts answer, within ``LIMIT_S``; all who ask within ``FRESH_S`` get the same answer."""
        if self._round is None or (self._round.done() and time.monotonic() >= self._stale):
            self._round = asyncio.create_task(self._ask())
        return await asyncio.shield(self._round)

    async def _ask(self) -> Health:
        questions = {"ray": self._ray, "mlflow": self._mlflow, "storage": self._storage}
        for name, question in questions.items():
            if name not in self._asked or self._asked[name].done():
                self._asked[name] = self._pool.submit(_answer, question)
        await asyncio.wait({asyncio.wrap_future(asked) for asked in self._asked.values()}, timeout=LIMIT_S)
        slow = Part(ok=False, detail=f"does not answer within {LIMIT_S:g} s")
        parts = {name: asked.result() if asked.done() else slow for name, asked in self._asked.items()}
        problem = self._watcher.problem
        parts["watch"] = Part(ok=problem is None, detail="looks" if problem is None else "fails; GET /watch says why")
        self._stale = time.monotonic() + FRESH_S
        return Health(ok=all(part.ok for part in parts.values()), parts=parts)

    def close(self) -> None:
        """Stop asking."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ray(self) -> str:
        self._jobs.all()
        return "answers"

    def _mlflow(self) -> str:
        uri = self._options.training.read_settings().tracking.uri
        if uri in TRACKING_OFF:
            return "off"
        probe(resolve_uri(uri, self._options.runs))
        return "answers"

    def _storage(self) -> str:
        FolderStorage(self._options.state).probe()
        if url := self._options.training.settings.get("storage.url"):
            open_storage(str(url), self._options.runs).probe()
        return "can be written"


def _answer(question: Callable[[], str]) -> Part:
    try:
        return Part(ok=True, detail=question())
    except Exception as error:  # whatever is wrong with a part, it does not work; the message may name addresses
        return Part(ok=False, detail=type(error).__name__)
