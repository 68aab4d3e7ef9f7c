"""What a person sees while a run goes on: one calm display in a terminal, plain lines in a file or in CI.

In: stages, lines, epochs and restarts as they come, and whom to ask for progress within an epoch. Out: the screen.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from ray_jobs.flows.journal import Epoch, clock, epoch_line
from ray_jobs.flows.progress import Word

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

STAGES = {
    "start": "getting ready",
    "train": "training",
    "assess": "testing and exporting",
    "log": "logging and registering",
}
_BARS = "▁▂▃▄▅▆▇█"
_TREND_POINTS = 32


class Display:
    """Plain lines, one per epoch. Called like a function it says a line, so it goes wherever a line can be said."""

    def __call__(self, line: str) -> None:
        """Say a line."""
        print(line, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, run: str, epochs: int, progress: Callable[[], Word | None]) -> None:  # noqa: ARG002 - the live one shows all
        """A run of so many epochs begins; ``progress`` tells how far its present epoch is."""
        self.epochs = epochs

    def stage(self, stage: str) -> None:
        """The run enters a stage (see ``STAGES``)."""

    def epoch(self, epoch: Epoch, best: Epoch | None) -> None:  # noqa: ARG002 - the live one shows all
        """An epoch is finished."""
        self(epoch_line(epoch, self.epochs))

    def restarted(self, restarts: int) -> None:
        """Workers were lost for the ``restarts``-th time; a line says why."""

    def close(self) -> None:
        """The screen is free again."""


class LiveDisplay(Display):
    """One block at the foot of a terminal, redrawn four times a second; lines scroll by above it."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console

        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._progress: Callable[[], Word | None] = lambda: None
        self._said: Word | None = None
        self._asked = 0.0
        self._run, self._stage, self._since, self._restarts = "", "", time.monotonic(), 0
        self._epochs: list[Epoch] = []
        self._best: Epoch | None = None

    def __call__(self, line: str) -> None:
        """Say a line above the block."""
        self._console.print(line, markup=False, soft_wrap=True)

    def begin(self, run: str, epochs: int, progress: Callable[[], Word | None]) -> None:
        """Draw the block."""
        from rich.live import Live

        super().begin(run, epochs, progress)
        self._run, self._progress, self._since = run, progress, time.monotonic()
        self._live = Live(
            get_renderable=self.picture, console=self._console, refresh_per_second=4, redirect_stderr=True
        )
        self._live.start()

    def stage(self, stage: str) -> None:
        """The run enters a stage."""
        self._stage = stage

    def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
        """An epoch is finished. One that was repeated replaces its first attempt."""
        self._epochs = [*(each for each in self._epochs if each.number < epoch.number), epoch]
        self._best = best

    def restarted(self, restarts: int) -> None:
        """Workers were lost for the ``restarts``-th time."""
        self._restarts, self._said = restarts, None

    def close(self) -> None:
        """Leave the screen to what comes after."""
        if self._live:
            self._live.transient = True
            self._live.stop()
            self._live = None

    def picture(self) -> Any:
        """The block as it is now."""
        from rich.table import Table
        from rich.text import Text

        self._ask()
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", min_width=11)
        rows.add_column()
        began = self._word or self._epochs or self._stage != "train"
        stage = STAGES.get(self._stage, self._stage) if began else "the workers are starting"
        rows.add_row("run", Text.assemble((self._run, "bold"), f"  {stage}  {clock(time.monotonic() - self._since)}"))
        rows.add_row("epoch", self._bar())
        rows.add_row("loss", self._loss())
        rows.add_row("mAP50-95", self._trend())
        rows.add_row("speed", self._speed())
        rows.add_row("checkpoint", self._checkpoint())
        rows.add_row("restarts", str(self._restarts))
        return rows

    def _ask(self) -> None:
        if self._stage != "train" or time.monotonic() - self._asked < 1:
            return
        self._asked = time.monotonic()
        self._said = self._progress() or self._said

    @property
    def _finished(self) -> int:
        return self._epochs[-1].number if self._epochs else 0

    @property
    def _word(self) -> Word | None:
        """What was said of the epoch that is going on; None where nothing was yet."""
        return self._said if self._said and self._said.progress.epoch > self._finished else None

    def _bar(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        within = self._word.progress.step / self._word.progress.steps if self._word else 0.0
        line = Table.grid(padding=(0, 2))
        step = f"step {self._word.progress.step}/{self._word.progress.steps}" if self._word else ""
        line.add_row(
            f"{self._finished}/{self.epochs}",
            ProgressBar(total=self.epochs, completed=self._finished + within, width=28, complete_style="green"),
            step,
            self._left(within),
        )
        return line

    def _left(self, within: float) -> str:
        if not self._epochs:
            return ""
        last = self._epochs[-1]
        seconds = (last.ended - last.started) * (self.epochs - last.number - within)
        return f"{clock(seconds)} left" if seconds > 0 else ""

    def _loss(self) -> str:
        if self._word:
            return f"{self._word.progress.loss:.3f}"
        return f"{self._epochs[-1].loss:.3f}" if self._epochs else "-"

    def _trend(self) -> str:
        values = [epoch.metrics.get("val/map50_95", 0.0) for epoch in self._epochs]
        if not values:
            return "-"
        best = ""
        if self._best:
            best = f"  best {self._best.metrics.get('val/map50_95', 0):.3f} in epoch {self._best.number}"
        return f"{values[-1]:.3f}  {sparkline(values)}{best}"

    def _speed(self) -> str:
        if self._word:
            said = self._word.progress
            spent = said.step / said.steps * (self._epochs[-1].metrics["train_seconds"] if self._epochs else 0)
            wait = f"  waited {said.data_wait_seconds / spent:.0%} for data" if spent else ""
            return f"{said.images_per_second:.1f} images/s{wait}"
        if not self._epochs:
            return "-"
        return f"{self._epochs[-1].metrics['images_per_second']:.1f} images/s{self._epochs[-1].waited}"

    def _checkpoint(self) -> str:
        if self._said is None:
            return "-"
        stored = self._said.stored_epoch
        storing = ", one on its way" if self._said.storing else ""
        return (f"epoch {stored} stored" if stored else "none stored yet") + storing


def sparkline(values: list[float]) -> str:
    """The last values as bars between the least and the most of them: ``▁▂▅▇``."""
    values = values[-_TREND_POINTS:]
    low, span = min(values), max(values) - min(values)
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1)) if span else 0] for value in values)


def open_display() -> Display:
    """A live display where standard output is a terminal that can redraw, else plain lines."""
    from rich.console import Console

    console = Console(highlight=False)
    can_redraw = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if can_redraw else Display()
