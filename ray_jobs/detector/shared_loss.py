"""The detection loss of a batch that is spread over several ranks, equal to that of the whole batch on one.

Ultralytics divides a batch's loss by the sum of its target scores, at least 1. On N ranks each divides by its own sum,
so ranks with few findings would count for more and, early in training where the sums lie below 1, the loss would
depend on the number of ranks. Here all ranks divide by the mean of the sums over all ranks.
"""

from typing import Any

import torch
from torch import distributed as dist
from ultralytics.utils.loss import v8DetectionLoss


class SharedDetectionLoss(v8DetectionLoss):
    """``v8DetectionLoss`` whose divisor is shared by all ranks. For training only: every rank must call it equally."""

    def __init__(self, model: torch.nn.Module, world_size: int) -> None:
        super().__init__(model)
        self.world_size = world_size
        self.target_score_sum = torch.zeros((), device=self.device)
        assign = self.assigner.forward

        def remember_target_scores(*arguments: Any, **keywords: Any) -> Any:
            assigned = assign(*arguments, **keywords)
            self.target_score_sum = assigned[2].sum().float()
            return assigned

        self.assigner.forward = remember_target_scores

    def get_assigned_targets_and_loss(
        self, preds: dict[str, torch.Tensor], batch: dict[str, Any], **assign_kwargs: Any
    ) -> tuple[Any, torch.Tensor, dict[str, torch.Tensor]]:
        """As in Ultralytics, with the divisor of the whole batch in place of this rank's."""
        assigned, loss, items = super().get_assigned_targets_and_loss(preds, batch, **assign_kwargs)
        own = self.target_score_sum
        everyone = own.clone()
        dist.all_reduce(everyone)
        correction = own.clamp(min=1) / (everyone.clamp(min=1) / self.world_size)
        return assigned, loss * correction, {name: value * correction for name, value in items.items()}
