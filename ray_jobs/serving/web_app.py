"""The read server's web application: its page, its JSON, who may ask, and how much at once.

In: something that reads the bytes of a picture. Out: an ASGI application. It knows nothing of Ray or of the registry.
Nothing is written to the disk: a picture is the whole body of a request, so there are no forms and no temporary files.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ray_jobs.dicom import is_dicom
from ray_jobs.errors import DataError
from ray_jobs.serving.answer import Answer, Health, ModelFacts, Problem, Score

TYPES = {"image/png", "image/jpeg", "application/dicom"}
FIRST_BYTES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # of PNG and JPEG
BODY_S = 30.0  # a body that takes longer to arrive is given up

PAGES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/viewer.js": "viewer.js"}
MEDIA = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Question:
    """What is asked about a picture: see the parameters of ``POST /v1/findings``."""

    threshold: float | None = None
    candidates: bool = False
    picture: bool = False


class ReadingService(Protocol):
    """What the application puts before the world."""

    async def answer(self, data: bytes, question: Question) -> Answer:
        """Read a picture. Raises DataError for bytes that are none."""

    def facts(self) -> ModelFacts:
        """About the detector in use."""

    def health(self) -> Health:
        """How it does."""


def token_digest(token: str) -> str:
    """SHA-256 of a token: all that the server keeps of it."""
    return hashlib.sha256(token.encode()).hexdigest()


def build_app(service: ReadingService, digest: str, max_bytes: int) -> Any:
    """The ASGI application. ``digest`` is that of the token that may ask; ``max_bytes`` bounds a picture."""
    app = FastAPI(
        title="Reading X-rays",
        summary="Boxes around findings in X-rays. For research, not for diagnosis.",
        version="1",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_exception_handler(RequestValidationError, _explain_validation)
    bearer = HTTPBearer(auto_error=False, description="The token in XRAY_READ_TOKEN where the server was started.")

    def allowed(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        offered = token_digest(given.credentials) if given else ""
        if not hmac.compare_digest(offered, digest):
            raise HTTPException(401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    @app.get("/health", response_model=Health)
    async def health() -> Health:
        """Whether the server can read, and with which model."""
        return service.health()

    @app.get("/v1/model", response_model=ModelFacts, dependencies=[Depends(allowed)], responses=_problems(401))
    async def model() -> ModelFacts:
        """The detector that reads now, its classes and their thresholds."""
        return service.facts()

    @app.post(
        "/v1/findings",
        response_model=Answer,
        response_model_exclude_none=True,
        dependencies=[Depends(allowed)],
        responses=_problems(401, 408, 413, 415, 422, 503),
        openapi_extra={"requestBody": _body()},
    )
    async def findings(
        request: Request,
        threshold: Annotated[
            Score | None, Query(description="From which score on a finding of any class counts; else the model's own.")
        ] = None,
        candidates: Annotated[bool, Query(description="Also everything from a score of 0.05 on.")] = False,
        picture: Annotated[bool, Query(description="Also the gray picture that was read, as a data: address.")] = False,
    ) -> Answer:
        """Find boxes in one X-ray, which is the body of the request. Nothing of it is kept."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in TYPES:
            raise HTTPException(415, f"Content-Type must be one of {', '.join(sorted(TYPES))}")
        data = await _body_of(request, max_bytes)
        if data and not (data.startswith(FIRST_BYTES) or is_dicom(data)):  # no other decoder is in reach from outside
            raise HTTPException(415, "the body is no PNG, JPEG or DICOM file, by its first bytes")
        try:
            return await service.answer(data, Question(threshold, candidates, picture))
        except DataError as error:
            raise HTTPException(422, str(error)) from None

    files = resources.files("ray_jobs.serving") / "page"
    for path, name in PAGES.items():
        app.add_api_route(path, _static((files / name).read_bytes(), name), include_in_schema=False, methods=["GET"])
    return _WithHeaders(app)


async def _body_of(request: Request, most: int) -> bytes:
    """The body, in memory; 413 as soon as it is known to be too large."""
    too_large = HTTPException(413, f"a picture may have at most {most:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the picture did not arrive within {BODY_S:g} s") from None
    return bytes(body)


def _static(content: bytes, name: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, media_type=MEDIA[name.rpartition(".")[2]])

    return page


async def _explain_validation(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - FastAPI's signature
    assert isinstance(error, RequestValidationError)
    problems = [f"{one['loc'][-1]}: {one['msg'].lower()}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(problems)}, 422)


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    words = {
        401: "No token, or a wrong one",
        408: "The picture did not arrive in time",
        413: "The picture has too many bytes",
        415: "No PNG, JPEG or DICOM, by its Content-Type or its first bytes",
        422: "The body cannot be read as a picture, or a parameter is wrong",
        503: "Too much to do; ask again after the seconds in Retry-After",
    }
    return {code: {"model": Problem, "description": words[code]} for code in codes}


def _body() -> dict[str, Any]:
    picture = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
    return {"required": True, "content": dict.fromkeys(sorted(TYPES), picture)}


class _WithHeaders:
    """Adds the headers of ``HEADERS`` to every answer."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self.app(scope, receive, send_with_headers)
