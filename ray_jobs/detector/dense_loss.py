"""Ultralytics' detection loss with shapes that do not depend on what is in the pictures.

``v8DetectionLoss`` gathers the anchors that were assigned to a box, so the sizes of its tensors change with every
batch, and it asks the device for them. A recorded step (``step_graph``) can do neither. Here the same sums run over all
anchors, those without a box counting nothing; tests compare loss and gradients with Ultralytics' own.
"""

from typing import Any

import torch
from torch.nn import functional
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import TaskAlignedAssigner, bbox2dist


class DenseAssigner(TaskAlignedAssigner):
    """``TaskAlignedAssigner`` that computes every pair of box and anchor. Needs at least one row of boxes."""

    def forward(self, *arguments: Any) -> tuple[torch.Tensor, ...]:
        """Without Ultralytics' second try, image by image, where memory runs out: a recording must hear of that."""
        scores, boxes = arguments[0], arguments[4]
        self.bs, self.n_max_boxes = scores.shape[0], boxes.shape[1]
        with torch.no_grad():
            assigned: tuple[torch.Tensor, ...] = self._forward(*arguments)
        return assigned

    def get_box_metrics(
        self,
        pd_scores: torch.Tensor,
        pd_bboxes: torch.Tensor,
        gt_labels: torch.Tensor,
        gt_bboxes: torch.Tensor,
        mask_gt: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in Ultralytics: (n, boxes, anchors) of alignment and of overlap."""
        anchors = pd_bboxes.shape[-2]
        labels = gt_labels.long().expand(-1, -1, anchors)
        scores = pd_scores.mT.gather(1, labels)
        overlaps = bbox_iou(gt_bboxes[:, :, None], pd_bboxes[:, None], xywh=False, CIoU=True).squeeze(-1).clamp(0)
        overlaps = torch.where(mask_gt.bool(), overlaps, 0.0)
        return scores.pow(self.alpha) * overlaps.pow(self.beta), overlaps

    def select_candidates_in_gts(
        self, xy_centers: torch.Tensor, gt_bboxes: torch.Tensor, mask_gt: torch.Tensor, eps: float = 1e-9
    ) -> torch.Tensor:
        """As in Ultralytics, without a number that is sent to the device."""
        middle = (gt_bboxes[..., :2] + gt_bboxes[..., 2:]) / 2
        sides = gt_bboxes[..., 2:] - gt_bboxes[..., :2]
        half = torch.where((sides < self.stride_val) & mask_gt.bool(), float(self.stride_val), sides)[:, :, None] / 2
        apart = xy_centers - middle[:, :, None]
        return ((apart + half > eps) & (half - apart > eps)).all(-1)


class DenseDetectionLoss(v8DetectionLoss):
    """The loss of ``batch["targets"]``, (n, boxes, 5): class and x1, y1, x2, y2 as shares of the picture, rows of
    zeros being none. ``size`` is the side of the pictures in pixels."""

    def __init__(self, model: torch.nn.Module, size: int) -> None:
        super().__init__(model)
        self.size = size
        known: TaskAlignedAssigner = self.assigner  # type: ignore[has-type]
        self.assigner = DenseAssigner(known.topk, known.num_classes, known.alpha, known.beta, known.stride, known.eps)
        points, strides = [], []
        for stride in self.stride.tolist():
            axis = torch.arange(size // int(stride), device=self.device) + 0.5
            y, x = torch.meshgrid(axis, axis, indexing="ij")
            points.append(torch.stack([x, y], -1).view(-1, 2))
            strides.append(torch.full((len(points[-1]), 1), float(stride), device=self.device))
        self.points, self.strides = torch.cat(points), torch.cat(strides)

    def loss(
        self, preds: dict[str, torch.Tensor], batch: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Gain-scaled box, class and distribution loss, times the number of pictures; and each for itself."""
        distances, scores = preds["boxes"].mT.contiguous(), preds["scores"].mT.contiguous()
        labels, corners = batch["targets"].split((1, 4), 2)
        corners = corners * self.size
        present = corners.sum(2, keepdim=True).gt(0.0).to(corners.dtype)
        boxes = self.bbox_decode(self.points, distances)
        _, targets, target_scores, found, _ = self.assigner(
            scores.detach().sigmoid(),
            (boxes.detach() * self.strides).type(corners.dtype),
            self.points * self.strides,
            labels,
            corners,
            present,
        )
        total = target_scores.sum().clamp(min=1)
        kinds = self.bce(scores, target_scores.to(scores.dtype))
        if self.class_weights is not None:
            kinds = kinds * self.class_weights
        weight = target_scores.sum(-1, keepdim=True) * found[..., None]
        targets = targets / self.strides
        apart = 1.0 - bbox_iou(boxes, targets, xywh=False, CIoU=True)
        edges = self._distribution(distances, bbox2dist(self.points, targets, self.reg_max - 1))
        sums = [torch.where(found[..., None], part, 0.0).mul(weight).sum() for part in (apart, edges)]
        gains = (self.hyp.box, self.hyp.cls, self.hyp.dfl)
        parts = torch.stack([sums[0], kinds.sum(), sums[1]]) / total
        loss = torch.stack([part * gain for part, gain in zip(parts.unbind(), gains, strict=True)])
        return loss * scores.shape[0], dict(zip(self.loss_names, loss.detach().unbind(), strict=True))

    def _distribution(self, distances: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The distribution focal loss (https://arxiv.org/abs/2006.04388) of every anchor, (n, anchors, 1)."""
        wanted = wanted.clamp(0, self.reg_max - 1 - 0.01)
        left = wanted.long()
        logs = functional.log_softmax(distances.view(*wanted.shape, self.reg_max), dim=-1)
        lower, upper = (logs.gather(-1, (left + step)[..., None]).squeeze(-1) for step in (0, 1))
        share = left + 1 - wanted
        return -(lower * share + upper * (1 - share)).mean(-1, keepdim=True)
