"""A training step recorded once and replayed: forward, loss and backward as one CUDA graph.

A step of yolo12n is some two thousand small kernels; started one by one from Python they leave a data-centre GPU idle
most of the time. What changes from step to step is copied into fixed places before the graph is replayed.
"""

import logging
from typing import Any

import torch

from ray_jobs.detector.dense_loss import DenseDetectionLoss

logger = logging.getLogger(__name__)

_NEVER = 1 << 30  # boxes: batches of other loaders are not recorded
_WARM_UP = 3  # steps before recording, as PyTorch's notes on CUDA graphs ask for


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    """Gray uint8 (n, 1, h, w) as what the network reads: 0..1 in three channels."""
    return (pixels.float() / 255).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


class StepGraph:
    """Takes the place of ``model.loss`` for batches of one size; every other batch goes the usual way.

    Gradients are added to the parameters' ``grad`` by the replay itself, so ``grad`` must never become None.
    """

    def __init__(self, model: Any, batch_size: int, size: int, most_boxes: int, autocast: torch.dtype | None) -> None:
        self.model, self.autocast = model, autocast
        self.usual_loss, self.dense_loss = model.loss, DenseDetectionLoss(model, size)
        device = next(model.parameters()).device
        self.pixels = torch.zeros(batch_size, 1, size, size, dtype=torch.uint8, device=device)
        self.targets = torch.zeros(batch_size, most_boxes, 5, device=device)
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.given_up = False
        self.total = torch.zeros((), device=device)
        self.items: dict[str, torch.Tensor] = {}
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def __call__(self, batch: dict[str, Any], preds: Any = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch, as ``DetectionModel.loss`` returns it."""
        if preds is not None or not self.takes(batch):
            return self.usual_loss(batch, preds)
        self._take(batch)
        if self.graph is None and (reason := self._try_to_record()):
            return self._give_up(batch, reason)
        assert self.graph is not None
        self.graph.replay()
        return _Replayed.apply(self.anchor, self.total), {name: value.clone() for name, value in self.items.items()}

    def takes(self, batch: dict[str, Any]) -> bool:
        """Whether a batch, as the ``DeviceLoader`` made it, is of the recorded size."""
        if self.given_up or not self.model.training:
            return False
        return batch["img"].shape == self.pixels.shape and batch.get("most_boxes", _NEVER) <= self.targets.shape[1]

    def _try_to_record(self) -> str:
        """Why it could not be done, if so: too little memory, or an operation that cannot be recorded.

        Words and not the error, which holds on to the memory of the failed attempt.
        """
        try:
            self.graph = self._record()
        except RuntimeError as error:
            return str(error) or type(error).__name__
        return ""

    def _give_up(self, batch: dict[str, Any], reason: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Train this batch and all others in single kernels."""
        logger.warning("a training step could not be recorded (%s); kernels are started one by one", reason)
        self.given_up = True
        torch.cuda.empty_cache()
        return self.usual_loss(batch | {"img": as_images(batch["img"])}, None)

    def _take(self, batch: dict[str, Any]) -> None:
        self.pixels.copy_(batch["img"])
        self.targets.zero_()
        rows = batch["batch_idx"].long()
        starts = torch.searchsorted(rows, torch.arange(len(self.pixels), device=rows.device))
        places = torch.arange(len(rows), device=rows.device) - starts[rows]
        middle, half = batch["bboxes"][:, :2], batch["bboxes"][:, 2:] / 2
        self.targets[rows, places] = torch.cat([batch["cls"].view(-1, 1), middle - half, middle + half], 1)

    def _step(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = as_images(self.pixels)
        with torch.autocast("cuda", dtype=self.autocast, enabled=self.autocast is not None, cache_enabled=False):
            loss, items = self.dense_loss(self.model.predict(images), {"targets": self.targets})
            total = loss.sum()
        total.backward()
        return total.detach(), items

    def _record(self) -> torch.cuda.CUDAGraph:
        """Record with what training depends on put back afterwards: warming up must not count as training."""
        kept = [buffer.clone() for buffer in self.model.buffers()]
        trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        gradients = [parameter.grad.clone() for parameter in trained]
        graph = torch.cuda.CUDAGraph()
        try:
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(_WARM_UP):
                    self._step()
            torch.cuda.current_stream().wait_stream(beside)
            # Batches are made by another thread meanwhile, whose memory is no business of this recording.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.total, self.items = self._step()
        finally:
            with torch.no_grad():
                for place, value in zip(self.model.buffers(), kept, strict=True):
                    place.copy_(value)
                for parameter, gradient in zip(trained, gradients, strict=True):
                    parameter.grad.copy_(gradient)
        return graph


class _Replayed(torch.autograd.Function):
    """A loss whose gradients are in place already: going backward from it does nothing."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, total: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        """The recorded total."""
        return total.clone()

    @staticmethod
    def backward(ctx: Any, _gradient: torch.Tensor) -> tuple[None, None]:  # noqa: ARG004
        """Nothing."""
        return None, None
