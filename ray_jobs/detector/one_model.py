"""That all ranks train one model, and not a copy each: after every epoch they compare a digest of its weights."""

import hashlib
from typing import Any

import torch
from torch import distributed as dist

from ray_jobs.errors import TrainingError


def one_digest(model: Any, epoch: int, world_size: int) -> str:
    """The digest of the model's parameters, 16 hexadecimal digits; all ranks call this together.

    Raises TrainingError where ranks hold different weights.
    """
    digest = hashlib.blake2b(digest_size=8)
    for parameter in getattr(model, "module", model).parameters():
        digest.update(parameter.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    mine = digest.hexdigest()
    if world_size > 1:
        digests = [""] * world_size
        dist.all_gather_object(digests, mine)
        if len(set(digests)) > 1:
            raise TrainingError(
                f"epoch {epoch}: the ranks hold different weights: {digests}; go on with --resume, from the last "
                "checkpoint, where they were the same"
            )
    return mine
