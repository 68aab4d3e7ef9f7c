"""The reader: one X-ray in, findings out, with nothing but an exported detector.

In: ``best.onnx`` as ``ray_jobs.detector.export`` writes it (a plain ``yolo export format=onnx`` works as well) and a
picture. The file itself says what its classes are called, how large its input is, and from which score on each class
counts. Out: findings, best first.
"""

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ray_jobs.errors import WeightsError
from ray_jobs.reading.finding import BATCH, DEFAULT_IOU, Finding, find
from ray_jobs.reading.thresholds import Override, check_stored, class_thresholds


class Reader:
    """An exported detector, ready to read.

    ``names`` are its classes in order, ``image_size`` the side of its square input in pixels, ``thresholds`` float32
    ``(classes,)`` the score above which each class counts.
    """

    def __init__(
        self,
        onnx_path: str | Path,
        threshold: Override = None,
        iou: float = DEFAULT_IOU,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        content: bytes | None = None,
    ) -> None:
        """Open an exported detector.

        ``threshold`` is the score in 0..1 above which a finding counts, for every class or by class name; else the
        thresholds that the file carries hold, and 0.25 for classes without one. ``iou`` is the overlap above which the
        lesser of two boxes of one class goes. ``providers`` are onnxruntime's, CUDA and then the CPU by default;
        ``threads`` bounds the CPU threads of one network call. ``content`` is the file where it is in memory already,
        and the path then only its name. Raises WeightsError for a file that is missing, broken
        or no detector, BadInput for a threshold that does not fit.
        """
        self.path = Path(onnx_path)
        self._session = _open_session(self.path, providers, threads, content)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.names = _read_names(self.path, metadata)
        self.image_size = _read_image_size(self.path, metadata)
        self.thresholds = class_thresholds(self.names, _read_thresholds(self.path, metadata, self.names), threshold)
        self.iou = iou
        self._input = self._session.get_inputs()[0].name
        self._batch = _check_shapes(self.path, self._session, len(self.names))

    def forward(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the network: float32 ``(B, 3, S, S)`` in 0..1 to the raw head output ``(B, 4 + classes, anchors)``."""
        parts = [
            self._session.run(None, {self._input: pixels[start : start + self._batch]})[0]
            for start in range(0, len(pixels), self._batch)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def read(self, image: npt.NDArray[Any]) -> list[Finding]:
        """Findings of one picture, gray or colour, 8 or 16 bit, best first; an empty list when nothing is found."""
        return self.read_batch([image])[0]

    def read_batch(self, images: Sequence[npt.NDArray[Any]]) -> list[list[Finding]]:
        """Findings of each picture; the pictures may differ in size."""
        return find(self.forward, images, self.names, self.image_size, self.thresholds, self.iou)


def _open_session(
    path: Path, providers: Sequence[str] | None, threads: int | None, content: bytes | None
) -> onnxruntime.InferenceSession:
    if content is None and not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of an exported detector (best.onnx)")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: the others are about its own optimisations
    if threads is not None:
        options.intra_op_num_threads = threads
    if providers is None:
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    # TF32, CUDA's default, rounds scores by about a thousandth; findings should not depend on the hardware.
    chosen = [(name, {"use_tf32": "0"} if name == "CUDAExecutionProvider" else {}) for name in providers]
    try:
        return onnxruntime.InferenceSession(content or str(path), options, providers=chosen)
    except Exception as error:  # onnxruntime's errors have no common ancestor but Exception
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path}: not an ONNX file that can be opened ({reason}); export the model again") from error


def _parse(path: Path, metadata: dict[str, str], key: str) -> Any:
    """A metadata value: JSON as this project writes it, or a Python literal as Ultralytics does."""
    if key not in metadata:
        raise WeightsError(f"{path}: its metadata has no '{key}'; use a file written by this project's export")
    try:
        return json.loads(metadata[key])
    except ValueError:
        try:
            return ast.literal_eval(metadata[key])
        except (ValueError, SyntaxError) as error:
            raise WeightsError(f"{path}: metadata '{key}' cannot be read: {metadata[key]!r:.80}") from error


def _read_names(path: Path, metadata: dict[str, str]) -> tuple[str, ...]:
    names = _parse(path, metadata, "names")
    if isinstance(names, dict):
        try:
            names = [names[key] for key in sorted(names, key=int)]
        except ValueError as error:
            raise WeightsError(f"{path}: metadata 'names' has keys that are no class numbers") from error
    if not isinstance(names, list) or not names:
        raise WeightsError(f"{path}: metadata 'names' must list the classes, got {names!r:.80}")
    return tuple(str(name) for name in names)


def _read_image_size(path: Path, metadata: dict[str, str]) -> int:
    size = _parse(path, metadata, "imgsz")
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int) or side < 1:
        raise WeightsError(f"{path}: metadata 'imgsz' must be one square size in pixels, got {size!r:.80}")
    return side


def _read_thresholds(path: Path, metadata: dict[str, str], names: tuple[str, ...]) -> dict[str, float]:
    stored = _parse(path, metadata, "thresholds") if "thresholds" in metadata else {}
    return check_stored(stored, names, f"{path}: metadata 'thresholds'")


def _check_shapes(path: Path, session: onnxruntime.InferenceSession, classes: int) -> int:
    """Refuse a network that is no plain YOLO detector; return how many pictures it takes at once."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape, out = inputs[0].shape, outputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or inputs[0].type != "tensor(float)":
        raise WeightsError(f"{path}: expected one float input (batch, 3, height, width), got {inputs[0].type} {shape}")
    if len(outputs) != 1 or len(out) != 3 or (isinstance(out[1], int) and out[1] != 4 + classes):
        raise WeightsError(f"{path}: expected one output (batch, {4 + classes}, anchors), got {out}; no plain detector")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise WeightsError(f"{path}: was exported for {shape[0]} pictures at once; export it with a dynamic batch")
    return 1 if isinstance(shape[0], int) else BATCH
