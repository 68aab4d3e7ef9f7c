"""The dense loss is Ultralytics' loss: value, parts and gradients."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_detector import NAMES

SIZE, PICTURES = 128, 4


def random_batch(counts: list[int], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    sides = torch.rand(total, 2, generator=generator) * 0.5 + 0.02
    boxes = torch.cat([sides / 2 + torch.rand(total, 2, generator=generator) * (1 - sides), sides], 1)
    return {
        "batch_idx": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).float(),
        "cls": torch.randint(0, len(NAMES), (total, 1), generator=generator).float(),
        "bboxes": boxes,
    }


def as_targets(batch: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    targets = torch.zeros(PICTURES, rows, 5)
    for picture in range(PICTURES):
        mine = batch["batch_idx"] == picture
        middle, half = batch["bboxes"][mine][:, :2], batch["bboxes"][mine][:, 2:] / 2
        targets[picture, : int(mine.sum())] = torch.cat([batch["cls"][mine], middle - half, middle + half], 1)
    return targets


@pytest.mark.parametrize("counts", [[3, 1, 0, 2], [0, 0, 0, 0], [1, 1, 1, 9]])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_parts_and_gradients_are_those_of_ultralytics(model: Any, counts: list[int], weighted: bool) -> None:
    from ultralytics.utils.loss import v8DetectionLoss

    from ray_jobs.detector.dense_loss import DenseDetectionLoss

    model.class_weights = torch.tensor([0.5, 1.5]) if weighted else None
    anchors = sum((SIZE // stride) ** 2 for stride in (8, 16, 32))
    torch.manual_seed(1)
    raw = torch.randn(PICTURES, 64 + len(NAMES), anchors)
    features = [torch.zeros(PICTURES, 1, SIZE // stride, SIZE // stride) for stride in (8, 16, 32)]
    batch = random_batch(counts, seed=sum(counts))
    found = []
    for loss, extra in (
        (v8DetectionLoss(model), {}),
        (DenseDetectionLoss(model, SIZE), {"targets": as_targets(batch, 12)}),
    ):
        leaf = raw.clone().requires_grad_()
        parts, items = loss({"boxes": leaf[:, :64], "scores": leaf[:, 64:], "feats": features}, batch | extra)
        parts.sum().backward()
        found.append(SimpleNamespace(parts=parts.detach(), items=items, gradient=leaf.grad))
    theirs, ours = found
    assert float(theirs.parts[1]) > 0
    torch.testing.assert_close(ours.parts, theirs.parts, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.gradient, theirs.gradient, rtol=1e-4, atol=1e-6)
    assert list(ours.items) == list(theirs.items)
    for name, value in theirs.items.items():
        torch.testing.assert_close(ours.items[name], value, rtol=1e-5, atol=1e-6)
