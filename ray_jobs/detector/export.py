"""Exports a trained detector to ONNX.

In: ``best.pt`` and what its reader must know (class names, input size, score thresholds). Out: one ONNX file with a
dynamic batch that carries this knowledge in its metadata. ``parity`` proves that it finds what the detector finds.

Ultralytics' exporter is passed by: it writes beside ``best.pt``, starts pip when a package is missing, and wants to
know the newest release. The graph is the same: its own model, traced by ``torch.onnx``, slimmed by onnxslim.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray_jobs.detector.evaluation import fused_model
from ray_jobs.detector.parity import ParityReport as ParityReport
from ray_jobs.detector.parity import check_parity as check_parity
from ray_jobs.errors import BadInput

OPSET = 18  # the newest whose Resize and ReduceMax onnxruntime runs on CUDA (see Ultralytics' best_onnx_opset)
IR_VERSION = 10  # understood by onnxruntime from 1.18 on


def export_onnx(
    best_pt: Path,
    onnx_path: Path,
    *,
    names: Sequence[str],
    image_size: int,
    thresholds: Mapping[str, float] | None = None,
    opset: int | None = None,
) -> None:
    """Write ``best_pt`` as ONNX to ``onnx_path``, whole or not at all.

    ``image_size`` is the side of the square input in pixels, a multiple of 32; ``thresholds`` the score in 0..1 from
    which on each class counts (by name; 0.25 where it is missing). The metadata holds ``names``, ``imgsz``, ``stride``,
    ``task``, ``thresholds`` and ``description``, JSON where it is more than a word. Raises BadInput for names, sizes or
    thresholds that do not fit the model, WeightsError for a file that is no detector.
    """
    import onnx
    import onnxslim

    model = fused_model(best_pt)
    metadata = _metadata(model, names, image_size, thresholds or {})
    onnx_path.parent.mkdir(parents=True, exist_ok=True)
    # A folder beside the target, so that the last step is a rename within one file system.
    with TemporaryDirectory(prefix=f".{onnx_path.name}.", dir=onnx_path.parent) as folder:
        traced, finished = Path(folder) / "traced.onnx", Path(folder) / "finished.onnx"
        _trace(model, traced, image_size, opset or OPSET)
        graph = onnxslim.slim(onnx.load(traced))
        onnx.helper.set_model_props(graph, metadata)
        graph.ir_version = min(graph.ir_version, IR_VERSION)
        onnx.checker.check_model(graph)
        onnx.save(graph, finished)
        finished.replace(onnx_path)


def _metadata(model: Any, names: Sequence[str], image_size: int, thresholds: Mapping[str, float]) -> dict[str, str]:
    stride, classes = int(max(model.stride)), model.model[-1].nc
    problems = []
    if len(names) != classes:
        problems.append(f"export: the model has {classes} classes, but {len(names)} names were given")
    if image_size < stride or image_size % stride:
        problems.append(f"export: image size must be a multiple of {stride} pixels, got {image_size}")
    problems += [f"export: threshold for '{name}': no such class" for name in thresholds if name not in names]
    problems += [
        f"export: threshold for '{name}' must lie in 0..1, got {value}"
        for name, value in thresholds.items()
        if not 0 <= value <= 1
    ]
    if problems:
        raise BadInput(problems)
    # JSON lists and numbers are Python literals as well, which is how Ultralytics reads its metadata.
    return {
        "description": f"YOLO12 detector of {', '.join(names)} on X-rays, {image_size} px",
        "names": json.dumps(list(names)),
        "imgsz": json.dumps([image_size, image_size]),
        "stride": str(stride),
        "task": "detect",
        "thresholds": json.dumps(dict(thresholds)),
        "batch": "1",
        "channels": "3",
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    }


def _trace(model: Any, path: Path, image_size: int, opset: int) -> None:
    import torch

    with warnings.catch_warnings():
        # PyTorch calls this exporter legacy; the new one needs onnxscript and gains nothing here. The tracer remarks
        # that shapes become constants, which is meant: only the batch varies.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, image_size, image_size),),
            str(path),
            opset_version=opset,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
            dynamo=False,
        )
