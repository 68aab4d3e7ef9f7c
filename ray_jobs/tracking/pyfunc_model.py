"""The detector as MLflow loads it: image arrays in, findings out. This file travels inside the registered model.

``mlflow.pyfunc.load_model("models:/NAME@ALIAS").predict(image)`` needs MLflow, onnxruntime, numpy, OpenCV and Pillow,
and neither this project nor PyTorch, Ultralytics or Ray: what it imports of ``ray_jobs`` is packed beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_jobs.reading.reader import Reader

FindingDict = dict[str, Any]


class XrayDetector:
    """What MLflow calls ``predict`` of."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def predict(
        self,
        model_input: Any,
        params: Mapping[str, Any] | None = None,  # noqa: ARG002 - part of MLflow's interface
    ) -> list[list[FindingDict]]:
        """For each image the list of its findings, best first; an empty list where nothing is found.

        ``model_input`` is one image, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or several: an array (N, H, W) or
        (N, H, W, C), or a list of images of any sizes. 8 bit, 16 bit or floats; lists of numbers, as JSON brings
        them, are taken as 8 bit where they fit. A finding is ``{"label", "score" in 0..1, "box": [x1, y1, x2, y2]
        in pixels of that image}``. ``params`` is there for MLflow and holds nothing.
        """
        found = self._reader.read_batch(split_images(model_input))
        return [[finding.as_dict() for finding in findings] for findings in found]


def split_images(model_input: Any) -> list[np.ndarray]:
    """One image or several, as a list of images; raises ValueError for what is neither."""
    if isinstance(model_input, Sequence) and any(isinstance(item, np.ndarray) for item in model_input):
        return [_as_pixels(np.asarray(item)) for item in model_input]
    array = np.asarray(getattr(model_input, "values", model_input))
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        return [_as_pixels(array)]
    if array.ndim in (3, 4):
        return [_as_pixels(image) for image in array]
    raise ValueError(f"expected an image (H, W) or (H, W, 3), or several, got an array of shape {array.shape}")


def _as_pixels(image: np.ndarray) -> np.ndarray:
    """Whole numbers of 32 or 64 bits, which is what JSON and plain lists become, as the pixels they stand for."""
    if image.dtype.kind in "iu" and image.dtype.itemsize > 2 and image.size and image.min() >= 0:
        for dtype in (np.uint8, np.uint16):
            if image.max() <= np.iinfo(dtype).max:
                return image.astype(dtype)
    return image


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> XrayDetector:
    """What MLflow calls with the path of the ONNX file.

    ``load_model(uri, model_config={"threshold": 0.1})`` replaces the thresholds that the file carries by one, a
    mapping such as ``{"Mass": 0.1}`` some of them, and ``iou`` the overlap in 0..1 above which the lesser of two
    boxes of one class goes.
    """
    settings = {key: value for key, value in (model_config or {}).items() if value is not None}
    return XrayDetector(Reader(data_path, **settings))
