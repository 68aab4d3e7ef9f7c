"""The HTTP side of the trigger: who may ask, what is asked, and what is answered.

In: requests with ``Authorization: Bearer TOKEN``. Out: jobs on the cluster and what became of them. ``/health``,
``/docs`` and ``/openapi.json`` need no token.
"""

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ray_jobs.errors import BadInput, ClusterError
from ray_jobs.tracking.addresses import redact_value
from ray_jobs.triggering.cycles import Ledger, outcome_of
from ray_jobs.triggering.documentation import page
from ray_jobs.triggering.health import HealthCheck
from ray_jobs.triggering.messages import (
    JOB_ID,
    Busy,
    FinetuneRequest,
    Health,
    Job,
    JobWithLog,
    Links,
    Problem,
    TrainingRequest,
    WatchState,
)
from ray_jobs.triggering.options import TriggerOptions
from ray_jobs.triggering.orders import NameTaken, NoSuchData, finetune_order, training_order
from ray_jobs.triggering.progress import progress_of
from ray_jobs.triggering.queue import Desk, JobRuns
from ray_jobs.triggering.ray_jobs_api import Order, RayJobs, Submitted
from ray_jobs.triggering.watcher import Watcher

MAX_BODY = 64 * 1024
SHOWN_PROBLEMS = 20

bearer = HTTPBearer(auto_error=False, description="the token in XRAY_TRIGGER_TOKEN")
JobId = Annotated[str, Path(pattern=JOB_ID)]
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "no such job"}}
REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "no token, or a wrong one"},
    503: {"model": Problem, "description": "the Ray cluster does not answer"},
}
STARTED: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "settings that do not go together"},
    404: {"model": Problem, "description": "no such data set"},
    409: {"model": Busy, "description": "a job runs already, a run has this name, or there is nothing to learn from"},
    413: {"model": Problem, "description": f"more than {MAX_BODY} bytes"},
}


class Trigger:
    """The parts of the service, put together."""

    def __init__(self, options: TriggerOptions, token: str) -> None:
        self.options = options
        self._token = token.encode()
        self.jobs = RayJobs(options.ray)
        self.desk = Desk(self.jobs, options.state)
        self.ledger = Ledger(options.state)
        self.watcher = Watcher(options, self.jobs, self.desk, self.ledger)
        self.health = HealthCheck(options, self.jobs, self.watcher)

    def check(self, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        """Raise 401 unless the request shows the token; how long that takes tells nothing of it."""
        shown = credentials.credentials.encode() if credentials else b""
        if not hmac.compare_digest(shown, self._token):
            raise HTTPException(401, "a valid token is needed", {"WWW-Authenticate": "Bearer"})

    def start(self, order: Order, queue: bool) -> Job:
        """Submit, or keep for later; returns the job as it is then."""
        started = self.desk.submit(order, queue)
        return self.find(order.id) if started else self._waiting(order)

    def find(self, job_id: str) -> Job:
        """A job by its id, wherever it is. Raises 404."""
        if job := self.jobs.get(job_id):
            return self.view(job)
        for order in self.desk.waiting():
            if order.id == job_id:
                return self._waiting(order)
        raise HTTPException(404, f"{job_id}: no such job")

    def all(self) -> list[Job]:
        """Every job, those that wait first, then the newest."""
        return [*map(self._waiting, reversed(self.desk.waiting())), *map(self.view, self.jobs.all())]

    def view(self, job: Submitted) -> Job:
        """What a client sees of a job on the cluster."""
        run = self.options.runs / job.run_name
        known = {key: getattr(job, key) for key in Submitted.__dataclass_fields__}
        return Job(**known, **progress_of(run), promotion=outcome_of(run), links=_links(job.id))

    def _waiting(self, order: Order) -> Job:
        return Job(
            id=order.id,
            kind=order.kind,
            state="QUEUED",
            run_name=order.run_name,
            started_by=order.started_by,
            links=_links(order.id),
        )


def _links(job_id: str) -> Links:
    return Links(self=f"/jobs/{job_id}", cancel=f"/jobs/{job_id}/cancel")


def make_app(options: TriggerOptions, token: str) -> FastAPI:
    """The service; its watch runs while the server does."""
    trigger = Trigger(options, token)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001 - the signature of lifespans
        trigger.watcher.start()
        yield
        trigger.watcher.stop()
        trigger.health.close()

    app = FastAPI(title="xray-ray trigger", version="1", lifespan=life, docs_url=None, redoc_url=None)
    app.add_middleware(LimitBody, most=MAX_BODY)
    _answer_errors(app, trigger)
    _add_open_pages(app, trigger)
    _add_triggers(app, trigger)
    _add_jobs(app, trigger)
    return app


def _answer_errors(app: FastAPI, trigger: Trigger) -> None:
    @app.exception_handler(BadInput)
    def bad_input(request: Request, error: BadInput) -> JSONResponse:  # noqa: ARG001 - the signature of handlers
        code = 404 if isinstance(error, NoSuchData) else 409 if isinstance(error, NameTaken) else 400
        return JSONResponse({"detail": "\n".join(error.problems)}, code)

    @app.exception_handler(ClusterError)
    def no_cluster(request: Request, error: ClusterError) -> JSONResponse:  # noqa: ARG001
        return JSONResponse({"detail": str(error)}, 503)

    @app.exception_handler(JobRuns)
    def job_runs(request: Request, error: JobRuns) -> JSONResponse:  # noqa: ARG001
        job = trigger.view(error.job) if error.job else None
        return JSONResponse(json.loads(Busy(detail=str(error), job=job).model_dump_json()), 409)


def _add_open_pages(app: FastAPI, trigger: Trigger) -> None:
    @app.get("/health", responses={503: {"model": Health, "description": "a part does not work"}})
    async def health(response: Response) -> Health:
        """Whether Ray, MLflow, storage and the watch work."""
        found = await trigger.health.ask()
        response.status_code = 200 if found.ok else 503
        return found

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    def docs() -> str:
        """All requests on one page."""
        return page(app.openapi())


def _add_triggers(app: FastAPI, trigger: Trigger) -> None:
    guarded = {"dependencies": [Depends(trigger.check)], "status_code": 202, "responses": {**REFUSED, **STARTED}}

    @app.post("/trigger-training", **guarded)  # type: ignore[arg-type]
    def trigger_training(wanted: TrainingRequest) -> Job:
        """Train anew."""
        return trigger.start(training_order(trigger.options, wanted), wanted.queue)

    @app.post("/trigger-finetune", **guarded)  # type: ignore[arg-type]
    def trigger_finetune(wanted: FinetuneRequest) -> Job:
        """Fine-tune a registered model; without ``data`` on all images that no champion has learned."""
        if wanted.data:
            return trigger.start(finetune_order(trigger.options, wanted), wanted.queue)
        cycle = trigger.watcher.begin(wanted)
        if cycle is None:
            raise HTTPException(409, "there are no labelled images that the champion has not learned")
        return trigger.find(cycle.id)


def _add_jobs(app: FastAPI, trigger: Trigger) -> None:
    guarded: dict[str, Any] = {"dependencies": [Depends(trigger.check)]}

    @app.get("/jobs", responses=REFUSED, **guarded)
    def jobs() -> list[Job]:
        """Every job of this service that Ray remembers, and those that wait."""
        return trigger.all()

    @app.get("/jobs/{job_id}", responses={**REFUSED, **UNKNOWN}, **guarded)
    def job(job_id: JobId) -> JobWithLog:
        """State, epoch, metrics and the end of the log."""
        found = trigger.find(job_id)
        return JobWithLog(**found.model_dump(), log_tail=trigger.jobs.log_tail(job_id))

    @app.post("/jobs/{job_id}/cancel", status_code=202, responses={**REFUSED, **UNKNOWN}, **guarded)
    def cancel(job_id: JobId) -> Job:
        """Stop a job, or take it out of the queue. One that has ended stays as it is."""
        found = trigger.find(job_id)
        if found.state == "QUEUED":
            if trigger.watcher.withdraw(job_id):
                return found.model_copy(update={"state": "STOPPED"})
            found = trigger.find(job_id)  # it was started meanwhile
        if found.state in ("PENDING", "RUNNING"):
            trigger.jobs.stop(job_id)
        return trigger.find(job_id)

    @app.get("/config", responses={401: REFUSED[401]}, **guarded)
    def config() -> dict[str, Any]:
        """The settings of the service; it has no secrets but the token, which is in the environment."""
        shown: dict[str, Any] = without_secrets(trigger.options.model_dump(mode="json"))
        return shown

    @app.get("/watch", responses={401: REFUSED[401]}, **guarded)
    def watch() -> WatchState:
        """What the watch has seen."""
        watcher, cycles = trigger.watcher, trigger.ledger.cycles()
        return WatchState(
            enabled=trigger.options.watch.enabled,
            waiting=len(watcher.new_images()),
            wanted=trigger.options.watch.min_images,
            unlabelled=watcher.seen.unlabelled,
            unsound=watcher.seen.unsound[:SHOWN_PROBLEMS],
            looked=watcher.looked,
            last_cycle=cycles[-1].id if cycles else None,
            problem=watcher.problem,
        )


def without_secrets(value: Any, key: str = "") -> Any:
    """Plain values without passwords in addresses and without what a key's name calls a secret."""
    if isinstance(value, dict):
        return {name: without_secrets(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner, key) for inner in value]
    return redact_value(key, value) if isinstance(value, str) else value


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class LimitBody:
    """Answers 413 to a body that is too large, before it is in memory; ASGI."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]], most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._most:
                refusal = JSONResponse({"detail": f"the body is larger than {self._most} bytes"}, 413)
                await refusal(scope, receive, send)
                return
        given = False

        async def whole() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, whole, send)
