"""A trial of a search: what was tried, how far it came and what it was worth.

In: what the trial's journal says. Out: a plain value that the live table, the result files and the report read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["pending", "running", "finished", "stopped", "failed"]
Value = int | float | str | bool


@dataclass(frozen=True)
class Trial:
    """One trial; ``number`` counts from 1 in the order in which they were suggested.

    ``stopped`` was ended early by the scheduler, ``failed`` by an error, whose cause is ``reason``.
    ``epochs`` are the metrics of each epoch under the names of a run's journal (``val/map50_95``, ``train/box_loss``,
    ``epoch``). ``score`` is the best value of the search's metric, None before the first epoch; ``parameters`` are
    those that it had then. ``seconds`` counts the time in which the trial held its resources, over all ``restarts``.
    """

    number: int
    parameters: Mapping[str, Value]
    state: State
    reason: str | None = None
    epochs: tuple[dict[str, float], ...] = ()
    score: float | None = None
    seconds: float = 0.0
    restarts: int = 0
    gpus: float = 0.0  # held while it ran
    cpus: float = 1.0
    peak_gpu_memory_gb: float | None = None
