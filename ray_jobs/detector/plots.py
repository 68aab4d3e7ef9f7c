"""Draws an evaluation: precision over recall, FROC and the confusion matrix, one PNG each.

In: an ``Evaluation``. Out: the paths of the pictures. Matplotlib's figures are used without its global state (no
``pyplot``), so that nothing opens a window or stays in memory, and threads do not meet.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.detector.evaluation import CONFUSION_IOU, CONFUSION_SCORE, Evaluation
from ray_jobs.detector.froc import RATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELLED = 20  # classes: beyond it, lines share a colour and cells hold no numbers


def draw_plots(evaluation: Evaluation, folder: Path, split: str = "test") -> list[Path]:
    """Write ``pr_curve.png``, ``froc.png`` and ``confusion_matrix.png`` to ``folder`` and return their paths.

    ``split`` stands in the titles. A split without boxes has no curves; its plots say so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "pr_curve.png": _precision_recall(evaluation, split),
        "froc.png": _froc(evaluation, split),
        "confusion_matrix.png": _confusion(evaluation, split),
    }
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=150)
    return [folder / name for name in drawn]


def _figure(title: str, width: float = 8.0, height: float = 5.5) -> "tuple[Figure, Axes]":
    # Matplotlib takes a second to import, and only these plots need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _colours(count: int) -> list[Any]:
    import matplotlib

    palette = matplotlib.colormaps["tab20"]
    # Its strong colours first, then the pale ones of the same hues.
    return [palette(number % 10 * 2 + number // 10) for number in range(count)]


def _no_boxes(axes: "Axes") -> None:
    axes.text(0.5, 0.5, "no boxes in this split", ha="center", va="center", transform=axes.transAxes)


def _precision_recall(evaluation: Evaluation, split: str) -> "Figure":
    figure, axes = _figure(f"Precision over recall at IoU 0.5, {split} split ({evaluation.images} images)")
    curves = evaluation.curves
    labelled = len(curves.precision) <= MOST_LABELLED
    colours = _colours(MOST_LABELLED)
    for number, (name, precision) in enumerate(curves.precision.items()):
        colour = colours[number] if labelled else "0.7"
        label = f"{name} {evaluation.per_class[name]['map50']:.3f}" if labelled else None
        axes.plot(curves.recall, precision, linewidth=1.2, color=colour, label=label)
    if curves.precision:
        mean = np.mean(list(curves.precision.values()), axis=0)
        axes.plot(curves.recall, mean, linewidth=3, color="black", label=f"mean (mAP50) {evaluation.map50:.3f}")
        axes.legend(title="AP50", loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
    else:
        _no_boxes(axes)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return figure


def _froc(evaluation: Evaluation, split: str) -> "Figure":
    result = evaluation.froc
    figure, axes = _figure(f"FROC, hit at IoU {result.iou:g}, {split} split ({evaluation.images} images)")
    measured = {name: curve for name, curve in result.per_class.items() if curve is not None}
    labelled = len(measured) <= MOST_LABELLED
    colours = _colours(MOST_LABELLED)
    for number, (name, curve) in enumerate(measured.items()):
        sensitivity = [curve.at(rate) for rate in RATES]
        colour = colours[number] if labelled else "0.7"
        axes.plot(RATES, sensitivity, linewidth=1.2, color=colour, label=name if labelled else None)
    if result.overall is not None:
        points = result.overall.points()
        sensitivity = [result.overall.at(rate) for rate in RATES]
        label = f"all classes (mean {points['mean']:.3f})"
        axes.plot(RATES, sensitivity, linewidth=3, marker="o", color="black", label=label)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
    else:
        _no_boxes(axes)
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, [f"{rate:g}" if rate >= 1 else f"1/{round(1 / rate)}" for rate in RATES])
    axes.set(xlabel="false positives per image", ylabel="sensitivity", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return figure


def _confusion(evaluation: Evaluation, split: str) -> "Figure":
    """Found against true, in boxes; shades are shares of each true class, the numbers are counts."""
    matrix = evaluation.curves.confusion
    names = [*evaluation.per_class, "background"]
    side = 4.5 + 0.45 * min(len(names), 40)
    title = f"Confusion matrix, {split} split\nscore over {CONFUSION_SCORE:g}, IoU over {CONFUSION_IOU:g}"
    figure, axes = _figure(title, side + 1, side)
    shares = matrix / np.maximum(matrix.sum(axis=0, keepdims=True), 1)
    shade = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shade, ax=axes, fraction=0.045, label="share of the true class")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="true", ylabel="found")
    if len(names) <= MOST_LABELLED:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            count = f"{int(matrix[row, column])}"
            axes.text(int(column), int(row), count, ha="center", va="center", color=colour, fontsize="small")
    return figure
