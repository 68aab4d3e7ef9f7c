"""Measures a detector on a split: what it finds, and how that compares with the truth.

In: a network (``Forward``: a PyTorch checkpoint or an ONNX file behind the same signature) and the samples of a split.
Out: detections in pixels of each image, and an ``Evaluation`` that goes into ``summary.json``.

Whatever the network, pictures are prepared and boxes suppressed by ``ray_jobs.reading``, so that two networks differ
in the network alone. mAP, precision, recall and F1 are computed by Ultralytics' own functions, with the settings of
``yolo val rect=False``, so that the numbers can be compared.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.dataset.samples import Sample
from ray_jobs.detector.froc import Froc, froc, image_auc
from ray_jobs.detector.match_statistics import Flags, MatchStatistics
from ray_jobs.errors import DataError
from ray_jobs.pixels import read_image
from ray_jobs.reading.decode import Detections, decode
from ray_jobs.reading.finding import Forward
from ray_jobs.reading.preprocess import Placement, letterbox

CONFUSION_SCORE, CONFUSION_IOU = 0.25, 0.45  # Ultralytics' defaults for a confusion matrix

Floats = npt.NDArray[np.floating[Any]]
Batch = tuple[npt.NDArray[np.float32], list[Placement]]


def torch_forward(best_pt: Path, device: str = "cpu", threads: int | None = None) -> Forward:
    """A trained checkpoint as a network, its convolutions and norms fused, in fp32.

    ``device`` is a PyTorch device ("cpu", "cuda:0"); ``threads`` the CPU threads of a call, all available by default.
    Raises WeightsError for a file that is no detector.
    """
    return forward_of(fused_model(best_pt), device, threads)


def forward_of(model: Any, device: str = "cpu", threads: int | None = None) -> Forward:
    """What ``fused_model`` gave as a network; see ``torch_forward``."""
    import torch

    place = torch.device(device)
    # On a CPU channels-last convolutions are a third faster; on a GPU fp32 gains nothing from it.
    layout = torch.channels_last if place.type == "cpu" else torch.contiguous_format
    model = model.to(place, memory_format=layout)
    cores = threads or _cores()

    def forward(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        before = torch.get_num_threads()
        torch.set_num_threads(cores)  # Ultralytics leaves a core idle, which on two cores is half the speed
        # TF32, cuDNN's default, rounds scores by about a thousandth; figures should not depend on the hardware.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if place.type == "cuda" else nullcontext()
        try:
            with torch.inference_mode(), exact:
                return model(torch.from_numpy(pixels).to(place, memory_format=layout)).float().cpu().numpy()
        finally:
            torch.set_num_threads(before)

    return forward


def fused_model(best_pt: Path) -> Any:
    """A checkpoint's model on the CPU, in fp32, ready to run: fused, and returning the decoded output alone."""
    from ray_jobs.detector.weights import load_model

    model: Any = load_model(best_pt)
    model = model.eval().fuse(verbose=False)
    model.model[-1].export = True  # without the raw feature maps
    return model


def model_facts(best_pt: Path) -> tuple[tuple[str, ...], int]:
    """Class names in order, and the input size in pixels that a checkpoint was trained with."""
    from ray_jobs.detector.weights import load_model

    return facts_of(load_model(best_pt))


def facts_of(model: Any) -> tuple[tuple[str, ...], int]:
    """The same of a model that was opened already."""
    arguments = model.args if isinstance(model.args, dict) else vars(model.args)
    return tuple(model.names[label] for label in sorted(model.names)), int(arguments["imgsz"])


def _cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1


def onnx_forward(onnx_path: Path, threads: int | None = None) -> Forward:
    """An exported detector as a network. Raises WeightsError for a file that is none."""
    from ray_jobs.reading.reader import Reader

    return Reader(onnx_path, threads=threads).forward


def detect(
    forward: Forward,
    samples: Sequence[Sample],
    size: int,
    batch: int = 16,
    conf: float = 0.001,
    iou: float = 0.7,
) -> list[Detections]:
    """Run a network over samples; for each one what it detects, in pixels of the image, best score first.

    ``size`` is the network's input in pixels, ``conf`` the score in 0..1 to start from, ``iou`` the overlap above which
    the lesser of two boxes of one class goes. Each class of a box counts, and boxes may reach over the picture's edge,
    as in ``yolo val``.
    """
    found: list[Detections] = []
    for pixels, placements in batches(samples, size, batch):
        for one, placement in zip(decode(forward(pixels), conf, iou, multi_label=True), placements, strict=True):
            boxes = placement.to_original(one.boxes, clip=False)
            found.append(Detections(boxes, one.scores, one.classes))
    return found


def batches(samples: Sequence[Sample], size: int, batch: int) -> Iterator[Batch]:
    """Prepared batches; the next one is read while the network works on this one."""
    groups = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    with ThreadPoolExecutor(min(8, _cores())) as readers:

        def start_reading(group: Sequence[Sample]) -> list[Any]:
            return [readers.submit(_prepare, sample, size) for sample in group]

        waiting = start_reading(groups[0]) if groups else []
        for following in [*groups[1:], []]:
            upcoming = start_reading(following)
            prepared = [picture.result() for picture in waiting]
            if prepared:
                yield np.stack([pixels for pixels, _ in prepared]), [placement for _, placement in prepared]
            waiting = upcoming


def _prepare(sample: Sample, size: int) -> tuple[npt.NDArray[np.float32], Placement]:
    return letterbox(read_image(sample.image), size)


def truth_of(sample: Sample) -> Detections:
    """The true boxes of a sample in pixels of its image, with score 1."""
    classes, x, y, width, height = sample.boxes.astype(np.float32).T
    corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    pixels = np.array([sample.width, sample.height, sample.width, sample.height], dtype=np.float32)
    return Detections(corners * pixels, np.ones(len(corners), dtype=np.float32), classes.astype(np.int64))


@dataclass(frozen=True)
class Curves:
    """What the plots are drawn from: precision at 1000 recalls (0..1) for each class that has boxes, its name and
    AP50; and the confusion matrix, found (rows) against true (columns) boxes, the last of each being background.
    ``f1``: F1 (0..1, IoU 0.5) of each class that has boxes, at 1000 scores spread evenly over 0..1."""

    recall: Floats
    precision: dict[str, Floats]
    confusion: Floats
    f1: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """How well a detector does on a split. Every figure lies in 0..1; None where there is nothing to measure.
    ``statistics`` is what ``bootstrap`` needs to tell how far the figures can be trusted.

    ``precision``, ``recall`` and ``f1`` stand at the score where the mean F1 over classes is best, as in ``yolo val``;
    ``map50`` and the others are means over the classes that have boxes in the split.
    """

    images: int
    boxes: int
    map50: float | None
    map50_95: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    per_class: dict[str, dict[str, float | int | None]]
    froc: Froc
    image_auc: float | None
    image_auc_missing: str | None
    curves: Curves = field(repr=False)
    statistics: MatchStatistics = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON: the figures alone; ``image_auc_missing`` says why ``image_auc`` is None."""
        plain = {key: value for key, value in vars(self).items() if key not in ("froc", "curves", "statistics")}
        return {**plain, "froc": self.froc.as_dict()}


def evaluate(detections: Sequence[Detections], samples: Sequence[Sample], names: Sequence[str]) -> Evaluation:
    """Compare detections with the truth. Raises DataError where there is no sample."""
    if not samples:
        raise DataError("evaluation: the split has no images; name one with images in data.yaml")
    truths = [truth_of(sample) for sample in samples]
    hits = _match(detections, truths)
    metrics, confusion = _ultralytics_metrics(detections, truths, hits, names)
    box = metrics.box
    row = {int(label): index for index, label in enumerate(box.ap_class_index)}
    per_class: dict[str, dict[str, float | int | None]] = {}
    for label, name in enumerate(names):
        values: list[float | None] = [None] * 5
        if label in row:
            at = row[label]
            values = [float(value[at]) for value in (box.ap50, box.ap, box.p, box.r, box.f1)]
        figures = dict(zip(("map50", "map50_95", "precision", "recall", "f1"), values, strict=True))
        counts = {"boxes": int(metrics.nt_per_class[label]), "images": int(metrics.nt_per_image[label])}
        per_class[name] = {**figures, **counts}
    best = [float(found.scores.max(initial=0.0)) for found in detections]
    auc, missing = image_auc(best, [len(true) > 0 for true in truths])
    precision = {names[label]: box.prec_values[at] for label, at in row.items()}
    f1 = {names[label]: box.f1_curve[at] for label, at in row.items()}
    return Evaluation(
        images=len(samples),
        boxes=sum(len(true) for true in truths),
        map50=float(box.map50) if row else None,
        map50_95=float(box.map) if row else None,
        precision=float(box.mp) if row else None,
        recall=float(box.mr) if row else None,
        f1=float(np.mean(box.f1)) if row else None,
        per_class=per_class,
        froc=froc(detections, truths, names),
        image_auc=auc,
        image_auc_missing=missing,
        curves=Curves(box.px, precision, confusion, f1),
        statistics=MatchStatistics.gather(detections, truths, hits, names),
    )


def match(detections: Sequence[Detections], truths: Sequence[Detections], names: Sequence[str]) -> MatchStatistics:
    """What was detected and is true in each image, matched as ``evaluate`` does."""
    return MatchStatistics.gather(detections, truths, _match(detections, truths), names)


def _match(detections: Sequence[Detections], truths: Sequence[Detections]) -> list[Flags]:
    """Which detections of each image hit a true box, (n, 10), at the IoU levels 0.5, 0.55 ... 0.95 of mAP."""
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import box_iou

    # A method of the validator that looks at nothing of it but the IoU levels.
    levels = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10))
    hits = []
    for found, true in zip(detections, truths, strict=True):
        reached = np.zeros((len(found), 10), dtype=bool)
        if len(found) and len(true):
            shared = box_iou(torch.from_numpy(true.boxes), torch.from_numpy(found.boxes))
            classes, true_classes = torch.from_numpy(found.classes), torch.from_numpy(true.classes)
            reached = BaseValidator.match_predictions(levels, classes, true_classes, shared).numpy()
        hits.append(reached)
    return hits


def _ultralytics_metrics(
    detections: Sequence[Detections], truths: Sequence[Detections], hits: Sequence[Flags], names: Sequence[str]
) -> tuple[Any, Floats]:
    """Ultralytics' ``DetMetrics`` and confusion matrix, filled the way its validator fills them."""
    import torch
    from ultralytics.utils.metrics import ConfusionMatrix, DetMetrics

    metrics, confusion = DetMetrics(dict(enumerate(names))), ConfusionMatrix(names=dict(enumerate(names)))
    for number, (found, true, reached) in enumerate(zip(detections, truths, hits, strict=True)):
        metrics.update_stats(
            {
                "tp": reached,
                "conf": found.scores,
                "pred_cls": found.classes.astype(np.float32),
                "target_cls": true.classes.astype(np.float32),
                "target_img": np.unique(true.classes).astype(np.float32),
                "im_name": str(number),
            }
        )
        confusion.process_batch(
            {
                "bboxes": torch.from_numpy(found.boxes),
                "conf": torch.from_numpy(found.scores),
                "cls": torch.from_numpy(found.classes),
            },
            {"bboxes": torch.from_numpy(true.boxes), "cls": torch.from_numpy(true.classes)},
            conf=CONFUSION_SCORE,
            iou_thres=CONFUSION_IOU,
        )
    metrics.process(plot=False)
    return metrics, confusion.matrix
