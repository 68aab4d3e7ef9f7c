"""The full state of a training run after an epoch, in fp32, so that going on gives what not stopping would have given.

One file, ``state.pt``, written by rank 0 and read by every rank. It holds tensors and plain values only and is loaded
without executing code. Random generators are not in it: samples are functions of (seed, epoch, index).
"""

import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ray_jobs.detector.epoch_report import WriteCheckpoint
from ray_jobs.errors import WeightsError

FORMAT = 1


def capture_state(trainer: Any) -> dict[str, Any]:
    """Everything that the next epoch depends on, of a trainer that has finished ``trainer.epoch`` (from 0)."""
    model = _unwrapped(trainer)
    pending = trainer.last_batch > trainer.last_optimizer_step
    return {
        "format": FORMAT,
        "epoch": trainer.epoch,
        "world_size": trainer.place.world_size,
        "amp": trainer.args.amp,
        "model": model.state_dict(),
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None} if pending else {},
        "ema": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "last_optimizer_step": trainer.last_optimizer_step,
        "best_fitness": _plain(trainer.best_fitness),
        "fitness": _plain(trainer.fitness),
        "stopper": {key: _plain(value) for key, value in vars(trainer.stopper).items()},
        "seconds": trainer.seconds_trained(),
    }


class Snapshots:
    """Copies of a state, each in the memory of the one before where nobody can write that into a file any more."""

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._writer: weakref.ref[WriteCheckpoint] | None = None

    def take(self, state: dict[str, Any], files: Mapping[str, BinaryIO]) -> WriteCheckpoint:
        """Copy a state; what is returned writes it as ``state.pt``, and the files, into a folder.

        The files are read when they are written, so they must not change; they are closed when that is forgotten.
        """
        forgotten = self._writer is not None and self._writer() is None
        snapshot = copied(state, self._state if forgotten else None)

        def write(folder: Path) -> None:
            save_state(snapshot, folder / "state.pt")
            for name, source in files.items():
                source.seek(0)
                with (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)

        weakref.finalize(write, _close, list(files.values()))
        self._state, self._writer = snapshot, weakref.ref(write)
        return write


def _close(files: list[BinaryIO]) -> None:
    for file in files:
        file.close()


def copied(state: Any, over: Any = None) -> Any:
    """The same state in memory of its own, on the CPU: training may go on while it is written.

    ``over``: an earlier copy that nobody needs any more, whose memory is used again where it fits. New memory costs
    more than the copying.
    """
    targets: list[torch.Tensor] = []
    sources: list[torch.Tensor] = []
    copy = _mirrored(state, over, targets, sources)
    with torch.no_grad():
        if targets:
            torch._foreach_copy_(targets, sources)  # one call: thousands of them cost as much as the bytes
    return copy


def _mirrored(state: Any, over: Any, targets: list[torch.Tensor], sources: list[torch.Tensor]) -> Any:
    """The state with other tensors in it, which stand in ``targets``, in the order of its own in ``sources``."""
    if isinstance(state, torch.Tensor):
        if not (isinstance(over, torch.Tensor) and over.shape == state.shape and over.dtype == state.dtype):
            over = torch.empty_like(state, device="cpu")
        targets.append(over)
        sources.append(state)
        return over
    if isinstance(state, dict):
        earlier = over if isinstance(over, dict) else {}
        return {key: _mirrored(value, earlier.get(key), targets, sources) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        before = over if isinstance(over, (list, tuple)) and len(over) == len(state) else [None] * len(state)
        pairs = zip(state, before, strict=True)
        return type(state)([_mirrored(value, earlier, targets, sources) for value, earlier in pairs])
    return state


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a captured state to a file that appears complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Read a state on the CPU without executing code. Raises ``WeightsError`` for what is no such file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(f"{path}: is no training state that can be read: {error}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WeightsError(f"{path}: is a training state of another version; start a new run")
    return state


def restore_state(trainer: Any, state: dict[str, Any], carried: bool = False) -> None:
    """Put a state into a fresh trainer whose model, EMA and optimizer exist. Gradients follow when training starts.

    Of a ``carried`` state, which was trained with other parameters, the trainer keeps its own learning rate, momentum
    and weight decay. Raises ``WeightsError`` for the state of another model.
    """
    kept = ("params", "fused", "foreach")  # these belong to the state
    own = [{key: value for key, value in group.items() if key not in kept} for group in trainer.optimizer.param_groups]
    try:
        _unwrapped(trainer).load_state_dict(state["model"])
        trainer.ema.ema.load_state_dict(state["ema"])
        trainer.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise WeightsError(f"the training state is of another model: {reason}") from None
    if carried:
        for group, values in zip(trainer.optimizer.param_groups, own, strict=True):
            group.update(values)
    trainer.ema.updates = state["updates"]
    if state["scaler"]:  # empty from a training without one
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.best_fitness, trainer.fitness = state["best_fitness"], state["fitness"]
    if not carried:  # whose patience was another training's
        vars(trainer.stopper).update(state["stopper"])
    trainer.start_epoch = state["epoch"] + 1


def restore_gradients(trainer: Any, gradients: dict[str, torch.Tensor]) -> None:
    """Put back the gradients that were waiting for an optimizer step."""
    for name, parameter in _unwrapped(trainer).named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device).clone()


def _unwrapped(trainer: Any) -> torch.nn.Module:
    model = trainer.model
    return model.module if hasattr(model, "module") else model


def _plain(value: Any) -> Any:
    return float(value) if value is not None and not isinstance(value, bool | int | str) else value
