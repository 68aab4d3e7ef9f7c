"""Reads a handful of X-rays from bytes to findings and drawings: the unit of work, in a thread or on a cluster.

In: pictures. Out: a ``Reading`` for each: its line for JSON and, where asked, the drawing as PNG; or what is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ray_jobs.dicom import decode_xray
from ray_jobs.errors import DataError
from ray_jobs.reading.drawing import NO_FINDINGS, draw_findings
from ray_jobs.reading.finding import Finding, Prepared
from ray_jobs.serving.detector import Detector
from ray_jobs.serving.pictures import Picture

CHUNK = 8  # pictures per call of the network: more gain nothing on a CPU, and weigh more
LARGEST_DRAWING = 2048  # pixels of a drawing's longer side; X-rays have up to 5000, which no screen shows


@dataclass(frozen=True)
class Reading:
    """What became of a picture: ``line`` (see ``describe``) and its drawing as PNG, or ``problem``."""

    source: str
    line: dict[str, Any] | None = None
    drawing: bytes | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ChunkReader:
    """Reads pictures with a detector; draws them as well, where asked to."""

    detector: Detector
    draw: bool

    def __call__(self, pictures: Sequence[Picture]) -> list[Reading]:
        """A reading for each picture, in their order; a bad one costs only itself."""
        opened = [self._open(picture) for picture in pictures]
        good = [one for one in opened if not isinstance(one, Reading)]
        findings = iter(self.detector.find([prepared for _, prepared, _ in good]))
        return [one if isinstance(one, Reading) else self._report(*one, next(findings)) for one in opened]

    def _open(self, picture: Picture) -> Reading | tuple[Picture, Prepared, npt.NDArray[np.uint8] | None]:
        try:
            gray = decode_xray(picture.read(), picture.shown)
        except DataError as error:
            return Reading(picture.source, problem=str(error))
        except MemoryError:
            return Reading(picture.source, problem=f"{picture.shown}: does not fit into memory; scale it down")
        # The picture itself goes as soon as it can: eight of them may be gigabytes.
        return picture, self.detector.prepare(gray), _scaled_down(gray) if self.draw else None

    def _report(
        self,
        picture: Picture,
        prepared: Prepared,
        preview: npt.NDArray[np.uint8] | None,
        findings: Sequence[Finding],
    ) -> Reading:
        height, width = prepared.placement.height, prepared.placement.width
        line = {"file": picture.shown, **describe(width, height, findings)}
        if preview is None:
            return Reading(picture.source, line)
        scale_y, scale_x = preview.shape[0] / height, preview.shape[1] / width
        moved = [
            replace(one, box=tuple(edge * scale for edge, scale in zip(one.box, (scale_x, scale_y) * 2, strict=True)))
            for one in findings
        ]
        pixels = np.asarray(draw_findings(preview, moved, names=self.detector.names))
        # Without boxes all is gray: one channel says the same in a third of the time.
        return Reading(picture.source, line, as_png(pixels if moved else pixels[..., 0]))


def describe(width: int, height: int, findings: Sequence[Finding]) -> dict[str, Any]:
    """A picture's size in pixels and its findings for JSON; "No findings" in words where there are none."""
    line = {"width": width, "height": height, "findings": [finding.as_dict() for finding in findings]}
    return line if findings else {**line, "summary": NO_FINDINGS}


def as_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Gray or RGB pixels as a PNG, made fast rather than small."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    return bytes(cv2.imencode(".png", np.ascontiguousarray(ordered), options)[1].data)


def _scaled_down(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = LARGEST_DRAWING / max(gray.shape)
    if scale >= 1:
        return gray
    size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
