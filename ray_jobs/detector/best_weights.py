"""Weights files that plain Ultralytics loads: ``YOLO("best.pt")``."""

from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from ultralytics import __version__
from ultralytics.utils import DEFAULT_CFG_KEYS


def write_weights(trainer: Any, path: Path) -> None:
    """Write the trainer's averaged (EMA) model in fp16, as Ultralytics' own final files are."""
    model = deepcopy(trainer.ema.ema).half().to(memory_format=torch.contiguous_format)
    model.criterion = None
    for module in model.modules():
        vars(module).pop("forward", None)  # what acceleration put there is not for a file
    for value in model.state_dict().values():
        if value.is_floating_point():
            torch.nan_to_num_(value)  # what fp16 cannot hold
    arguments = {key: value for key, value in vars(trainer.args).items() if key in DEFAULT_CFG_KEYS}
    model.args = arguments
    for parameter in model.parameters():
        parameter.requires_grad = False
    partial = path.with_name(path.name + ".partial")
    torch.save(
        {
            "epoch": -1,
            "model": model,
            "ema": None,
            "optimizer": None,
            "train_args": arguments,
            "train_metrics": {key: float(value) for key, value in (trainer.metrics or {}).items()},
            "date": datetime.now(UTC).isoformat(),
            "version": __version__,
            "license": "AGPL-3.0 License (https://ultralytics.com/license)",
            "docs": "https://docs.ultralytics.com",
        },
        partial,
    )
    partial.replace(path)
