"""Whether a model's numbers can still be trained on."""

import math
from typing import Any

from ray_jobs.errors import Diverged


def check_finite(trainer: Any, epoch: int) -> None:
    """Raise ``Diverged`` for losses, weights or running statistics that are not finite after ``epoch`` (from 0).

    The losses are means over all ranks and the weights are the same everywhere, so all ranks agree. Running statistics
    are looked at too: one bad batch may spoil them, and they would outlive it in the checkpoint.
    """
    losses = {name: float(value) for name, value in (trainer.tloss or {}).items()}
    if not all(math.isfinite(value) for value in losses.values()):
        words = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        raise Diverged(f"epoch {epoch + 1}: the loss is not finite ({words})")
    if trainer.place.rank != 0:
        return  # what rank 0 finds ends the epoch for all
    model = trainer.model.module if hasattr(trainer.model, "module") else trainer.model
    for part in (model, trainer.ema.ema):
        for name, value in part.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise Diverged(f"epoch {epoch + 1}: {name} of the model is not finite")
