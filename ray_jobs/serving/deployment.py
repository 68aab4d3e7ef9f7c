"""The read server as Ray Serve runs it: replicas that share the requests, each with the detector in memory.

In: ``ReplicaSettings``. Out: a Serve application. A replica decodes pictures in threads, reads those of several
requests in one call of the network, and follows the champion by itself.
"""

import asyncio
import base64
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ray import serve
from ray.util import get_node_ip_address

from ray_jobs.dicom import decode_xray
from ray_jobs.pixels import ImageError
from ray_jobs.reading.finding import Finding, Prepared, findings_in
from ray_jobs.reading.measures import ReadingMeasures
from ray_jobs.reading.preprocess import network_input
from ray_jobs.reading.thresholds import Override
from ray_jobs.serving.answer import Answer, FoundBox, Health, ModelFacts, ModelName
from ray_jobs.serving.champion import Champion, InUse
from ray_jobs.serving.chunk import as_png, describe
from ray_jobs.serving.web_app import Question, build_app

LARGEST_BATCH = 8  # more gain nothing on a CPU
BATCH_WAIT_S = 0.005  # how long a picture waits for others
LOWEST_CANDIDATE = 0.05

Output = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReplicaSettings:
    """What a replica is given. ``token_digest``: SHA-256 of the token; ``threads``: CPU threads of a replica;
    ``poll_s``: seconds between two looks at the alias."""

    model: str
    override: Override
    tracking_uri: str | None
    token_digest: str
    max_bytes: int
    threads: int
    poll_s: float


@serve.deployment
@serve.ingress()
class XrayReader:
    """A replica."""

    def __init__(self, settings: ReplicaSettings) -> None:
        self._settings = settings
        self._champion = Champion(
            settings.model, settings.override, settings.tracking_uri, settings.threads, settings.poll_s
        )
        self._champion.start()
        self._decoders = ThreadPoolExecutor(settings.threads, thread_name_prefix="decode")
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._measures = ReadingMeasures(get_node_ip_address())

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve once the replica is made."""
        return build_app(self, self._settings.token_digest, self._settings.max_bytes)

    def facts(self) -> ModelFacts:
        """About the detector in use."""
        used = self._champion.current
        return ModelFacts(
            model=ModelName(name=used.name, version=used.version), thresholds=used.detector.thresholds_by_class()
        )

    def health(self) -> Health:
        """How this replica does."""
        return Health(status="ok", model=self.facts().model, registry=self._champion.registry)

    async def answer(self, data: bytes, question: Question) -> Answer:
        """Read a picture; the detector is the one that is in use now, whatever takes over meanwhile."""
        used, loop, started = self._champion.current, asyncio.get_running_loop(), time.perf_counter()

        def open_() -> tuple[Prepared, str | None]:
            gray = decode_xray(data, "the picture")
            shown = f"data:image/png;base64,{base64.b64encode(as_png(gray)).decode()}" if question.picture else None
            return used.detector.prepare(gray), shown

        try:
            prepared, shown = await loop.run_in_executor(self._decoders, open_)
        except ImageError:
            self._measures.refused()
            raise
        output: Output = await self._outputs((used, prepared))
        answer = _answer(used, prepared, output, question, shown)
        self._measures.read(time.perf_counter() - started, len(answer.findings))
        return answer

    @serve.batch(max_batch_size=LARGEST_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _outputs(self, waiting: list[tuple[InUse, Prepared]]) -> list[Output]:
        """The network's output for each waiting picture: one call, or two while a champion takes over."""
        return await asyncio.get_running_loop().run_in_executor(self._network, _run, waiting)


def _run(waiting: list[tuple[InUse, Prepared]]) -> list[Output]:
    outputs: dict[int, Output] = {}
    for used in {id(used): used for used, _ in waiting}.values():
        places = [place for place, (one, _) in enumerate(waiting) if one is used]
        found = used.detector.forward(network_input([waiting[place][1].square for place in places]))
        outputs |= dict(zip(places, found, strict=True))
    return [outputs[place] for place in range(len(waiting))]


def _answer(used: InUse, prepared: Prepared, output: Output, question: Question, shown: str | None) -> Answer:
    detector = used.detector

    def found(limits: npt.NDArray[np.float32]) -> list[Finding]:
        return findings_in(output, prepared.placement, detector.names, limits, detector.iou)

    def common(score: float) -> npt.NDArray[np.float32]:
        return np.full(len(detector.names), score, np.float32)

    findings = found(detector.thresholds if question.threshold is None else common(question.threshold))
    thresholds = detector.thresholds_by_class()
    if question.threshold is not None:
        thresholds = dict.fromkeys(thresholds, question.threshold)
    boxes = [FoundBox(**one.as_dict()) for one in found(common(LOWEST_CANDIDATE))] if question.candidates else None
    return Answer(
        **describe(prepared.placement.width, prepared.placement.height, findings),
        model=ModelName(name=used.name, version=used.version),
        thresholds=thresholds,
        candidates=boxes,
        picture=shown,
    )


def application(settings: ReplicaSettings, replicas: int, at_once: int, waiting: int) -> serve.Application:
    """The Serve application: each replica works on ``at_once`` requests, ``waiting`` more wait, and the rest is
    refused with 503 and Retry-After."""
    reader: Any = XrayReader  # Serve's decorators hide that it is a deployment
    bound: serve.Application = reader.options(
        name="xray-reader",
        num_replicas=replicas,
        max_ongoing_requests=at_once,
        max_queued_requests=waiting,
        backpressure_config={"status_code": 503, "retry_after_s": 1},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=10,
        logging_config={"enable_access_log": False},
        ray_actor_options={"num_cpus": settings.threads},
    ).bind(settings)
    return bound
