"""What training says after every epoch, read by the driver while it trains: a line for people, metrics for tracking.

In: the run's ``journal.jsonl``, which Ray Train's controller appends to. Out: ``Epoch`` by ``Epoch``, and ``Event``s:
what happened to the run besides.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOT_METRICS = ("epoch", "started", "last", "weights_digest", "precision", "local_rank", "storage_trouble")


@dataclass(frozen=True)
class Epoch:
    """One epoch (from 1) of one model on ``world_size`` ranks."""

    number: int
    world_size: int
    started: float
    ended: float
    metrics: dict[str, float]
    precision: str = ""

    @property
    def loss(self) -> float:
        """The mean training loss, all parts together."""
        return sum(value for name, value in self.metrics.items() if name.startswith("train/"))

    @property
    def waited(self) -> str:
        """``  waited 3% for data``; empty where that was not measured."""
        wait, spent = self.metrics.get("data_wait_seconds"), self.metrics.get("train_seconds")
        return f"  waited {wait / spent:.0%} for data" if wait is not None and spent else ""


@dataclass(frozen=True)
class Event:
    """Something that befell a run: ``failure`` (workers lost), ``damaged`` (a checkpoint), ``rollback``, ``outage`` (of
    the store), or ``state`` (``text`` is what Ray Train does now, on so many ``workers``)."""

    kind: str
    time: float
    text: str
    workers: int = 0

    @property
    def is_fault(self) -> bool:
        """Whether something went wrong, and not only on."""
        return self.kind != "state"


@dataclass
class JournalReader:
    """Reads the journal from its beginning. An epoch that was repeated after a restart replaces its first attempt."""

    path: Path
    epochs: list[Epoch] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    restarts: int = 0
    repeated: int = 0
    _offset: int = 0

    def read_new(self) -> Iterator[Epoch]:
        """The epochs that have been written since the last call."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    epoch = self._parse(json.loads(line))
                # Cut short by a kill or a full disk, then written on.
                except (ValueError, LookupError, TypeError, AttributeError):
                    continue
                if epoch is not None:
                    self.epochs.append(epoch)
                    yield epoch

    def _parse(self, line: dict[str, Any]) -> Epoch | None:
        if line["kind"] != "epoch":
            self.restarts += line["kind"] == "failure"
            self.events.append(_event(line))
            return None
        metrics = line["metrics"]
        if self.epochs and metrics["epoch"] <= self.epochs[-1].number:  # what came of a lost attempt is gone
            self.repeated += sum(epoch.number >= metrics["epoch"] for epoch in self.epochs)
            self.epochs = [epoch for epoch in self.epochs if epoch.number < metrics["epoch"]]
        plain = {key: float(value) for key, value in metrics.items() if key not in NOT_METRICS}
        ranks, precision = len(line["weights_digests"]), metrics.get("precision", "")
        return Epoch(metrics["epoch"], ranks, metrics["started"], line["time"], plain, precision)

    @property
    def best(self) -> Epoch | None:
        """The epoch whose weights are best.pt: the last of those with the highest fitness."""
        best = None
        for epoch in self.epochs:
            if best is None or epoch.metrics.get("val/fitness", 0) >= best.metrics.get("val/fitness", 0):
                best = epoch
        return best


def _event(line: dict[str, Any]) -> Event:
    causes = line.get("causes") or []
    causes = list(causes.values()) if isinstance(causes, dict) else causes
    text = line.get("text") or line.get("state") or "; ".join(map(str, causes)) or "a worker was lost"
    return Event(line["kind"], line["time"], text, int(line.get("workers", 0)))


def epoch_line(epoch: Epoch, total: int) -> str:
    """``epoch 3/25  loss 8.21  mAP50 0.052  mAP50-95 0.021  18.4 img/s  waited 3% for data  10:21 left``."""
    metrics = epoch.metrics
    left = (epoch.ended - epoch.started) * (total - epoch.number)
    return (
        f"epoch {epoch.number:>{len(str(total))}}/{total}  loss {epoch.loss:6.3f}  "
        f"mAP50 {metrics.get('val/map50', 0):.3f}  mAP50-95 {metrics.get('val/map50_95', 0):.3f}  "
        f"{metrics['images_per_second']:6.1f} img/s{epoch.waited}  {clock(left)} left"
    )


def clock(seconds: float) -> str:
    """``10:21``, ``1:02:03``."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def follow(
    reader: JournalReader,
    running: Callable[[], bool],
    pause_s: float = 0.3,
    on_turn: Callable[[], None] = lambda: None,
) -> Iterator[Epoch]:
    """Epochs as they come, until ``running()`` is false and everything was read; ``on_turn`` is called in between."""
    while running():
        yield from reader.read_new()
        on_turn()
        time.sleep(pause_s)
    yield from reader.read_new()
    on_turn()
