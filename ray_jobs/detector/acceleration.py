"""What makes a step faster without changing what it computes, and where each of these is used.

Every switch stands in ``settings.speed``; ``docs/performance.md`` has what each is worth.
"""

from types import MethodType
from typing import Any

import torch
from torch.nn import functional
from ultralytics.nn.modules.block import AAttn
from ultralytics.nn.modules.conv import Conv

from ray_jobs.detector.batch_augment import Ranges, supported
from ray_jobs.detector.device_loader import DeviceLoader
from ray_jobs.detector.pixel_store import PixelStore
from ray_jobs.detector.process import Place
from ray_jobs.detector.sampling import EpochBatchSampler
from ray_jobs.detector.step_graph import StepGraph
from ray_jobs.detector.xray_dataset import XrayDataset
from ray_jobs.settings import SpeedSettings

_MOST_BOXES = 64  # in one picture of a recorded step; a batch with more goes the usual way
_FUSED = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)


def device_loader(
    speed: SpeedSettings,
    dataset: XrayDataset,
    sampler: EpochBatchSampler,
    place: Place,
    arguments: Any,
    pixels: PixelStore | None = None,
) -> DeviceLoader | None:
    """Batches made on the GPU; None where they are not wanted, cannot be made there, or do not fit.

    ``pixels`` are those of the same pictures that are there already.
    """
    device = torch.device(place.device)
    if not speed.gpu_augmentation or device.type != "cuda" or not supported(arguments):
        return None
    if not PixelStore.fits(len(dataset), dataset.imgsz, device):
        return None
    pixels = pixels or PixelStore(dataset, device, place.threads)
    return DeviceLoader(dataset, pixels, sampler, Ranges.of(arguments))


def record_steps(speed: SpeedSettings, trainer: Any) -> StepGraph | None:
    """Have full batches trained by a recorded step. None where steps differ from each other, or are not on one GPU."""
    loader, arguments = trainer.train_loader, trainer.args
    alike = not arguments.multi_scale and not arguments.freeze and not trainer.scaler.is_enabled()
    if not speed.gpu_graph or not isinstance(loader, DeviceLoader) or trainer.world_size > 1 or not alike:
        return None
    precision = torch.bfloat16 if arguments.amp == "bf16" else None
    most = min(max(4 * loader.store.most_boxes, 1), _MOST_BOXES)
    graph = StepGraph(trainer.model, trainer.batch_size, arguments.imgsz, most, precision)
    trainer.model.loss = graph
    trainer.model.criterion = trainer.model.init_criterion()  # asked for after an epoch, also one of replays alone
    return graph


def fuse_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimizer with one kernel for all parameters, where PyTorch has one."""
    if type(optimizer) in _FUSED:
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    return optimizer


def attend_at_once(model: torch.nn.Module) -> None:
    """Have YOLO12's area attention computed by PyTorch's attention kernel, which keeps no matrix of all pairs."""
    for module in model.modules():
        if isinstance(module, AAttn):
            module.forward = MethodType(_attend, module)


def _attend(self: Any, x: torch.Tensor) -> torch.Tensor:
    """``AAttn.forward`` with ``scaled_dot_product_attention``; its scale is the same, 1 / sqrt(head_dim)."""
    batch, _, height, width = x.shape
    qkv = self.qkv(x).flatten(2).transpose(1, 2)
    rows = qkv.reshape(batch * self.area, -1, self.num_heads, self.head_dim * 3).transpose(1, 2)
    query, key, value = rows.split(self.head_dim, dim=-1)

    def as_map(heads: torch.Tensor) -> torch.Tensor:
        joined = heads.transpose(1, 2).reshape(batch, height, width, self.all_head_dim)
        return joined.permute(0, 3, 1, 2)

    seen = as_map(functional.scaled_dot_product_attention(query, key, value))
    mixed: torch.Tensor = self.proj(seen + self.pe(as_map(value)))
    return mixed


def deep_convolutions_in_fp32(model: torch.nn.Module) -> None:
    """Keep depthwise convolutions out of bf16 on a CPU, which computes their gradients three times slower in it."""
    for module in model.modules():
        if isinstance(module, Conv) and module.conv.groups == module.conv.in_channels > 1:
            module.conv.forward = MethodType(_in_fp32, module.conv)


def _in_fp32(self: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return type(self).forward(self, x.float())
