"""A detector as a person names it, and as it works: ``models:/NAME@ALIAS``, ``best.onnx`` or ``best.pt``.

In: a name. Out: a ``DetectorFile``, bytes that can travel to any process of a cluster, and there a ``Detector``.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import WeightsError
from ray_jobs.reading.finding import DEFAULT_IOU, Finding, Forward, Prepared, find_prepared, prepare
from ray_jobs.reading.reader import Reader
from ray_jobs.reading.thresholds import FILE, Override, check_stored, class_thresholds, load_thresholds
from ray_jobs.tracking.addresses import resolve_uri
from ray_jobs.tracking.registered_model import (
    ONNX_ARTIFACT,
    ONNX_TAG,
    SCHEME,
    fetch_file,
    find_version,
    parse_address,
)


@dataclass(frozen=True)
class Detector:
    """A loaded detector. ``thresholds``: float32 ``(classes,)``, in 0..1. Safe to use from several threads."""

    names: tuple[str, ...]
    image_size: int
    thresholds: npt.NDArray[np.float32]
    forward: Forward
    iou: float = DEFAULT_IOU

    def prepare(self, gray: npt.NDArray[np.uint8]) -> Prepared:
        """A gray picture ``(H, W)``, ready to be read; much smaller than the picture."""
        return prepare(gray, self.image_size)

    def find(
        self, pictures: Sequence[Prepared], thresholds: npt.NDArray[np.float32] | None = None
    ) -> list[list[Finding]]:
        """The findings of each picture, best first, in one call of the network."""
        limits = self.thresholds if thresholds is None else thresholds
        return find_prepared(self.forward, pictures, self.names, limits, self.iou)

    def thresholds_by_class(self) -> dict[str, float]:
        """For people and JSON."""
        return {name: round(float(score), 4) for name, score in zip(self.names, self.thresholds, strict=True)}


@dataclass(frozen=True)
class DetectorFile:
    """A detector that can travel. ``name`` is what a person calls it; ``stored`` are thresholds that lay beside a
    PyTorch file, ``override`` a person's."""

    name: str
    content: bytes = field(repr=False)
    onnx: bool
    stored: Mapping[str, float] = field(default_factory=dict)
    override: Override = None

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.content).hexdigest()

    def load(self, threads: int | None = None) -> Detector:
        """Open it; ``threads`` bounds the CPU threads of one network call. Raises WeightsError or BadInput."""
        if self.onnx:
            reader = Reader(self.name, self.override, threads=threads, content=self.content)
            return Detector(reader.names, reader.image_size, reader.thresholds, reader.forward, reader.iou)
        return self._load_pytorch(threads)

    def _load_pytorch(self, threads: int | None) -> Detector:
        from ray_jobs.detector.evaluation import facts_of, forward_of, fused_model

        with tempfile.TemporaryDirectory(prefix="xray-weights-") as folder:
            path = Path(folder) / Path(self.name).name
            path.write_bytes(self.content)
            model = fused_model(path)
        names, image_size = facts_of(model)
        forward = forward_of(model, _device(), threads)
        # One thread for all calls: PyTorch's number of threads is one for the whole process, and each thread that calls
        # the network would have OpenMP threads, cuDNN handles and plans of its own.
        network = ThreadPoolExecutor(1, thread_name_prefix="network")

        def one_at_a_time(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            return network.submit(forward, pixels).result()

        stored = check_stored(self.stored, names, f"{self.name}: the {FILE} beside it")
        return Detector(names, image_size, class_thresholds(names, stored, self.override), one_at_a_time)


def find_detector(model: str, override: Override = None, tracking_uri: str | None = None) -> DetectorFile:
    """The detector that a person named: ``models:/NAME@ALIAS`` (or ``/VERSION``), ``PATH.onnx`` or ``PATH.pt``.

    Raises BadInput or WeightsError for one that is not there, TrackingError where the registry does not answer.
    """
    if model.startswith(SCHEME):
        uri = registry_uri(tracking_uri)
        version = find_version(uri, parse_address(model))
        with tempfile.TemporaryDirectory(prefix="xray-model-") as folder:
            path = fetch_file(uri, version, ONNX_ARTIFACT, version.tags.get(ONNX_TAG), Path(folder))
            return DetectorFile(f"{SCHEME}{version.name}/{version.version}", path.read_bytes(), True, {}, override)
    path = Path(model).expanduser()
    if path.suffix not in (".onnx", ".pt"):
        raise WeightsError(f"{model}: expected a detector as .onnx, .pt or {SCHEME}NAME@ALIAS")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the path of a trained detector (best.onnx or best.pt)")
    onnx = path.suffix == ".onnx"
    return DetectorFile(str(path), path.read_bytes(), onnx, {} if onnx else load_thresholds(path), override)


def registry_uri(tracking_uri: str | None) -> str:
    """Where registered detectors are looked up: as given, else ``MLFLOW_TRACKING_URI``, else ``runs/mlflow.db``."""
    return resolve_uri(tracking_uri, Path(os.environ.get("XRAY_OUTPUT_DIR") or "runs"))


def _device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
