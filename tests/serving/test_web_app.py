"""What the web application lets through to whoever reads."""

import asyncio

import cv2
import httpx
import numpy as np
import pytest

from ray_jobs.serving.answer import Answer, ModelName
from ray_jobs.serving.web_app import Question, build_app, token_digest

TOKEN = "a token that nobody guesses"
PIXELS = np.zeros((8, 8), np.uint8)


class NothingFound:
    """Reads any bytes."""

    async def answer(self, data: bytes, question: Question) -> Answer:  # noqa: ARG002 - as the protocol says
        return Answer(width=8, height=8, findings=[], model=ModelName(name="none", version="1"), thresholds={})


def ask(body: bytes, kind: str) -> httpx.Response:
    async def post() -> httpx.Response:
        app = build_app(NothingFound(), token_digest(TOKEN), 1 << 20)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reader") as client:
            headers = {"Content-Type": kind, "Authorization": f"Bearer {TOKEN}"}
            return await client.post("/v1/findings", content=body, headers=headers)

    return asyncio.run(post())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (cv2.imencode(".png", PIXELS)[1].tobytes(), "image/png"),
        (cv2.imencode(".jpg", PIXELS)[1].tobytes(), "image/jpeg"),
        (bytes(128) + b"DICM", "application/dicom"),
    ],
)
def test_png_jpeg_and_dicom_are_read(body: bytes, kind: str) -> None:
    assert ask(body, kind).status_code == 200


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/dicom"])
@pytest.mark.parametrize("suffix", [".tiff", ".webp", ".bmp"])
def test_the_first_bytes_are_believed_and_not_the_name(suffix: str, kind: str) -> None:
    answer = ask(cv2.imencode(suffix, PIXELS)[1].tobytes(), kind)
    assert answer.status_code == 415
    assert "first bytes" in answer.json()["detail"]
