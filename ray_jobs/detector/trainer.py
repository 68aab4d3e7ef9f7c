"""Ultralytics' detection trainer, told its place among N ranks, that trains one model and loses nothing.

What it changes, and why, stands at each method. The training loop itself is Ultralytics' own.
"""

import random
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import ultralytics.engine.trainer as ultralytics_trainer
from torch import distributed as dist
from torch import nn
from ultralytics.utils.torch_utils import autocast, init_seeds

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.acceleration import (
    attend_at_once,
    deep_convolutions_in_fp32,
    fuse_optimizer,
    record_steps,
)
from ray_jobs.detector.best_weights import write_weights
from ray_jobs.detector.epoch_report import EpochReport, Progress, WriteCheckpoint, plain_names
from ray_jobs.detector.finite import check_finite
from ray_jobs.detector.one_model import one_digest
from ray_jobs.detector.pixel_store import PixelStore
from ray_jobs.detector.precision import WORTH_PIXELS, faster_precision
from ray_jobs.detector.process import Place
from ray_jobs.detector.reading_model import ReadingModel
from ray_jobs.detector.sampling import stable_seed
from ray_jobs.detector.shared_loss import SharedDetectionLoss
from ray_jobs.detector.step_graph import StepGraph
from ray_jobs.detector.training_data import TrainingData
from ray_jobs.detector.training_state import Snapshots, capture_state, load_state, restore_gradients, restore_state
from ray_jobs.settings import SpeedSettings

PROGRESS_S = 1.0  # between two words on progress


class DetectorTraining(TrainingData):
    """Trains one model on ``place.world_size`` ranks; the process group exists already where there are several.

    The name must not contain "Trainer": by that word Ultralytics attaches its own MLflow and Ray Tune callbacks.
    """

    def __init__(
        self,
        arguments: dict[str, Any],
        index: DatasetIndex,
        place: Place,
        report: Callable[[EpochReport], None],
        resume_from: Path | None = None,
        cache_folder: Path | None = None,
        *,
        carried: bool = False,
        lr_scale: float = 1.0,
        speed: SpeedSettings,
        choose_precision: bool = False,
        on_batch: Callable[[], None] = lambda: None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.speed, self.choose_precision = speed, choose_precision
        self._graph: StepGraph | None = None
        self._pixels: PixelStore | None = None
        self.index, self.place, self.report, self.on_progress = index, place, report, on_progress
        self.resume_from, self.cache_folder = resume_from, cache_folder
        self.carried, self.lr_scale = carried, lr_scale
        self.last_batch = self.last_optimizer_step = -1
        self._nominal_accumulate, self._unseen_batches = 1, 0
        self._resumed: dict[str, Any] | None = None
        self._snapshots = Snapshots()
        self._marks: dict[str, float] = {}
        self._started = self._data_wait = 0.0
        self._images_read = self._images_decoded = 0
        self._validation_scale = 1.0
        self.model: Any
        self.tloss: Any
        super().__init__(overrides=arguments)
        ultralytics_trainer.autocast = _autocast
        ultralytics_trainer.check_amp = lambda _model: True  # it wants to download a model
        torch.set_num_threads(place.threads)  # Ultralytics leaves cores idle
        self.device = torch.device(place.device)
        self.world_size, self.ddp = 1, False  # see _build_train_pipeline
        for event in ("on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_fit_epoch_end"):
            self.add_callback(event, lambda trainer, event=event: getattr(trainer, f"_{event}")())
        self.add_callback("on_train_batch_start", lambda trainer: trainer._count_batch())
        for event in ("on_train_batch_start", "on_val_batch_start"):
            self.add_callback(event, lambda _: on_batch())
        self.add_callback("on_train_batch_end", lambda trainer: trainer._say_progress())

    # -- model ----------------------------------------------------------------------------------------------------

    def setup_model(self) -> Any:
        """Build the model from the seed alone: Ultralytics adds the rank to it, so 1 and N workers would differ."""
        init_seeds(self.args.seed, deterministic=self.args.deterministic)
        return super().setup_model()

    def build_optimizer(self, *arguments: Any, **keywords: Any) -> torch.optim.Optimizer:
        """As Ultralytics does."""
        optimizer = super().build_optimizer(*arguments, **keywords)
        return fuse_optimizer(optimizer) if self.speed.fused_optimizer else optimizer

    def _build_train_pipeline(self) -> None:
        """Wrap the model for N ranks, then build loaders and optimizer for the rank's share of the batch.

        Ultralytics wraps earlier, in a way that fails on a CPU; a world size of one until here keeps it from that.
        """
        recorded = self._forget_failed_try()
        self.model = self.model.to(memory_format=torch.channels_last)
        if self.speed.fused_attention and self.device.type == "cuda":
            attend_at_once(self.model)
        if self.place.world_size > 1 and self.world_size == 1:
            self.world_size = self.place.world_size
            self.model = nn.parallel.DistributedDataParallel(
                self.model,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                find_unused_parameters=True,  # a batch without any finding leaves the box branch unused
                forward_sync_buffers=False,
            )
        super()._build_train_pipeline()
        if recorded:
            self._record_steps()
        self._validation_scale = self._scale_of_validation_losses()

    def _forget_failed_try(self) -> bool:
        """Give back what a try held that found too little memory; the next one trains a smaller batch.

        Ultralytics builds it while it handles the error, whose frames hold the activations of the failed step. Returns
        whether steps were recorded.
        """
        self._unseen_batches = 0  # of a run that went on: the loop counts anew
        recorded = self._graph is not None
        if self._graph is not None:
            self.model.loss, self._graph = self._graph.usual_loss, None
        if (error := sys.exception()) is not None:
            self.train_loader = None
            traceback.clear_frames(error.__traceback__)
            self._clear_memory()
        return recorded

    def _record_steps(self) -> None:
        self._graph = record_steps(self.speed, self)
        if self._graph is not None:
            self.optimizer.zero_grad = partial(self.optimizer.zero_grad, set_to_none=False)

    def _scale_of_validation_losses(self) -> float:
        """Ultralytics divides the ranks' mean sum of losses by rank 0's number of batches, not by their mean number."""
        if self.world_size == 1:
            return 1.0
        batches = torch.tensor(float(len(self.test_loader)), device=self.device)
        dist.all_reduce(batches)
        return len(self.test_loader) * self.world_size / max(float(batches), 1.0)

    def get_validator(self) -> Any:
        """As Ultralytics does; on a CPU it reads with a copy of the averaged model that is faster at it."""
        validator = super().get_validator()
        if self.device.type == "cpu":
            reading = ReadingModel()
            validator.get_model = lambda _model, trainer: reading.of(trainer.ema.ema)
        return validator

    def validate(self) -> tuple[dict[str, float] | None, float | None]:
        """As Ultralytics does, with the validation losses averaged over all ranks' batches."""
        metrics, fitness = super().validate()
        if metrics is not None:
            metrics |= {key: value * self._validation_scale for key, value in metrics.items() if key.startswith("val/")}
        return metrics, fitness

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step. A resumed loop believes that no step was ever made; this corrects it."""
        return self._nominal_accumulate + self._unseen_batches

    @accumulate.setter
    def accumulate(self, batches: int) -> None:
        self._nominal_accumulate = batches

    def optimizer_step(self) -> None:
        """As Ultralytics does, remembering the batch."""
        super().optimizer_step()
        self.last_optimizer_step, self._unseen_batches = self.last_batch, 0

    # -- going on after a stop ------------------------------------------------------------------------------------

    def resume_training(self, ckpt: Any) -> None:  # noqa: ARG002 - Ultralytics' signature
        """Restore the full state: Ultralytics' own way rounds weights and optimizer to fp16."""
        self._settle_precision()
        self._record_steps()
        if self.place.world_size > 1:  # after the EMA was copied: validation keeps the plain loss
            self.model.module.criterion = SharedDetectionLoss(self.model.module, self.place.world_size)
        rates = [group["initial_lr"] for group in self.optimizer.param_groups]
        if self.resume_from is not None:
            self._restore(self.resume_from)
        if self.lr_scale != 1.0:
            self.scheduler.base_lrs = [rate * self.lr_scale for rate in rates]
            for group, rate in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
                group["initial_lr"] = rate

    def _settle_precision(self) -> None:
        """What ``precision: auto`` means on a CPU: what the run began with, else what is faster here."""
        if self.choose_precision and self.resume_from is not None:
            amp = load_state(self.resume_from / "state.pt").get("amp", False)
            self.args.amp = amp if amp in (False, "bf16") else False
        elif self.choose_precision:
            pixels = len(self.train_loader.dataset) * self.epochs * self.args.imgsz**2
            if pixels >= WORTH_PIXELS:
                share = self.batch_size // self.world_size
                model = self.model.module if self.world_size > 1 else self.model
                faster = faster_precision(model, share, self.args.imgsz, self.world_size)
                self.args.amp = "bf16" if faster == "bf16" else False
        if self.device.type == "cpu" and self.args.amp == "bf16":
            deep_convolutions_in_fp32(self.model)

    @property
    def precision(self) -> str:
        """The number format of this training: fp32, bf16 or fp16."""
        words: dict[Any, str] = {False: "fp32", "bf16": "bf16"}
        return words.get(self.args.amp, "fp16")

    def _restore(self, folder: Path) -> None:
        self._resumed = load_state(folder / "state.pt")
        restore_state(self, self._resumed, self.carried)
        self.last_optimizer_step = self._resumed["last_optimizer_step"]
        if self.place.rank == 0:
            for name, target in (("results.csv", self.csv), ("best.pt", self.best)):
                if (folder / name).is_file():
                    target.write_bytes((folder / name).read_bytes())

    def _on_train_start(self) -> None:
        if self._resumed:
            self.train_time_start -= self._resumed["seconds"]

    def seconds_trained(self) -> float:
        """Seconds of training so far, those before a stop included."""
        return time.time() - self.train_time_start

    def _on_train_epoch_start(self) -> None:
        """Make all that the main process draws in this epoch a function of (seed, epoch)."""
        self.train_loader.sampler.set_epoch(self.epoch)
        seed = stable_seed(self.args.seed, self.epoch) & 0xFFFFFFFF
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.last_batch = self.epoch * len(self.train_loader) - 1
        if self._resumed is not None:
            self._unseen_batches = self.last_optimizer_step + 1
            restore_gradients(self, self._resumed["gradients"])
            self._resumed = None
        self._marks["epoch"], self._started, self._data_wait = time.perf_counter(), time.time(), 0.0
        self._images_read = self._images_decoded = 0
        self._marks["batch"] = self._marks["said"] = self._marks["epoch"]

    def _count_batch(self) -> None:
        self.last_batch += 1
        self._data_wait += time.perf_counter() - self._marks["batch"]

    def _say_progress(self) -> None:
        """Seconds apart: reading a loss waits for the GPU."""
        now = self._marks["batch"] = time.perf_counter()
        if self.on_progress is None or now - self._marks["said"] < PROGRESS_S:
            return
        self._marks["said"] = now
        steps = len(self.train_loader)
        step = self.last_batch - self.epoch * steps + 1
        loss = sum(float(part) for part in self.tloss.values())
        speed = len(self.train_loader.dataset) * step / steps / (now - self._marks["epoch"])
        self.on_progress(Progress(self.epoch + 1, step, steps, loss, speed, self._data_wait))

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Raise on all ranks; Ultralytics' own recovery needs files that other ranks do not have."""
        check_finite(self, epoch)
        return False

    # -- reporting ------------------------------------------------------------------------------------------------

    def _on_train_epoch_end(self) -> None:
        """Replace each rank's own losses by their mean over all ranks."""
        self._marks["trained"] = time.perf_counter()
        if self.place.world_size > 1:
            names = list(self.tloss)
            total = torch.stack([self.tloss[name].detach().float() for name in names])
            dist.all_reduce(total)
            self.tloss = {name: total[i] / self.place.world_size for i, name in enumerate(names)}

    def _on_fit_epoch_end(self) -> None:
        digest = one_digest(self.model, self.epoch + 1, self.place.world_size)
        last = bool(self.stop) or self.epoch + 1 >= self.epochs
        capture = self._capture_checkpoint if self.place.rank == 0 else None
        metrics = self._epoch_metrics()
        how = (self.batch_size, capture, self.precision, self.args.nbs)
        self.report(EpochReport(self.epoch + 1, self._started, metrics, digest, last, *how))

    def _epoch_metrics(self) -> dict[str, float]:
        training = self._marks["trained"] - self._marks["epoch"]
        losses = {f"train/{name}": float(value) for name, value in self.tloss.items()}
        rates = {name: float(value) for name, value in self.lr.items()}
        speed = {
            "images_per_second": len(self.train_loader.dataset) / training,
            "train_seconds": training,
            "val_seconds": time.perf_counter() - self._marks["trained"],
            "data_wait_seconds": self._data_wait,
            "images_cached": float(self._images_read - self._images_decoded),
            "images_decoded": float(self._images_decoded),
        }
        if self.device.type == "cuda":
            speed["gpu_memory_bytes"] = float(torch.cuda.max_memory_allocated(self.device))
        fitness = {} if self.fitness is None else {"val/fitness": float(self.fitness)}
        return {**losses, **plain_names(self.metrics or {}), **fitness, **rates, **speed}

    def _capture_checkpoint(self) -> WriteCheckpoint:
        # Weights are replaced as a whole, so an open file keeps those of now; results are appended to.
        files: dict[str, BinaryIO] = {file.name: file.open("rb") for file in (self.best, self.last) if file.is_file()}
        if self.csv.is_file():
            files[self.csv.name] = BytesIO(self.csv.read_bytes())
        return self._snapshots.take(capture_state(self), files)

    def save_model(self) -> bool:
        """Write best.pt when this epoch is the best and last.pt at the end, both loadable by plain Ultralytics."""
        if not self.args.save:
            return False
        if self.best_fitness == self.fitness:
            write_weights(self, self.best)
        if self.stop or self.epoch + 1 >= self.epochs:
            write_weights(self, self.last)
        return True

    def final_eval(self) -> None:
        """Nothing: the best weights are evaluated in a step of their own, on the test split."""


def _autocast(enabled: bool | torch.dtype, device: str = "cuda") -> Any:
    """Ultralytics' autocast, and bf16 on CPUs, which it refuses though they have it."""
    if device == "cpu":
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled is torch.bfloat16)
    return autocast(enabled, device)
