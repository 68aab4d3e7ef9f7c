"""What a person sees while a search runs: a table that is drawn anew in a terminal, a few plain lines elsewhere.

In: the trials as they change. Out: the screen. Nothing else is printed meanwhile.
"""

import time
from collections.abc import Callable
from typing import Any

from ray_jobs.flows.search.journal import Event, SearchState, TrialRecord
from ray_jobs.search.score import Score

_REDRAW_S, _STATUS_S = 0.5, 60.0
_ROWS = 20


class SearchTable:
    """Draws the trials; ``samples`` and ``epochs`` are what the budget allows."""

    def __init__(
        self, state: SearchState, score: Score, samples: int, epochs: int, say: Callable[[str], None], terminal: bool
    ) -> None:
        self.state, self.score, self.samples, self.epochs, self._say = state, score, samples, epochs, say
        self._began, self._said_at = time.time(), time.monotonic()
        self._done_before = sum(trial.phase == "ended" for trial in state.trials.values())
        self._live: Any = None
        if terminal:
            from rich.live import Live

            self._live = Live(self.draw(), auto_refresh=False)
            self._live.start()

    def on_event(self, event: Event) -> None:
        """Say that a trial ended or lost its process."""
        if self._live is not None or event["kind"] not in ("ended", "lost"):
            return
        trial = self.state.trials[event["trial"]]
        if event["kind"] == "lost":
            what = f"{event['reason']}; goes on after epoch {trial.checkpoint[2] if trial.checkpoint else 0}"
        else:
            what = f"{trial.state}: {trial.reason}" if trial.reason else trial.state
        self._say(
            f"trial {trial.number:>3}  {len(trial.epochs):>3} epochs  {self.score.metric} "
            f"{self.score.shown(trial.best)}  {what}  ({_parameters(trial)})"
        )

    def on_tick(self) -> None:
        """Draw the table anew; where there is no terminal, say now and then how far it is."""
        now = time.monotonic()
        if now - self._said_at < (_REDRAW_S if self._live is not None else _STATUS_S):
            return
        self._said_at = now
        if self._live is not None:
            self._live.update(self.draw(), refresh=True)
        else:
            self._say(self.status())

    def status(self) -> str:
        """``12 of 20 trials ended, 2 running; best: trial 7 with 0.3120; about 3:20 left``."""
        ended = sum(trial.phase == "ended" for trial in self.state.trials.values())
        running = sum(trial.phase == "running" for trial in self.state.trials.values())
        best = self.state.best()
        found = f"; best: trial {best.number} with {self.score.shown(best.best)}" if best else ""
        return f"{ended} of {self.samples} trials ended, {running} running{found}; {self._left(ended)}"

    def _left(self, ended: int) -> str:
        """From the pace of the trials that ended since this command began."""
        done = ended - self._done_before
        if not done:
            return "time left not known yet"
        seconds = int((time.time() - self._began) / done * (self.samples - ended))
        minutes, rest = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"about {hours}:{minutes:02d}:{rest:02d} left" if hours else f"about {minutes}:{rest:02d} left"

    def draw(self) -> Any:
        """Those that run, then the best and the newest, as far as they fit a screen."""
        from rich.console import Group
        from rich.table import Table

        table = Table()
        names = next((list(trial.parameters) for trial in self.state.trials.values()), [])
        for title in ("trial", "state", "epoch", self.score.metric, *names):
            table.add_column(title, justify="left" if title == "state" else "right", overflow="fold")
        order = {"running": 0, "waiting": 1, "pending": 2, "ended": 3}
        trials = sorted(
            self.state.trials.values(),
            key=lambda trial: (order[trial.phase], -(trial.best if trial.best is not None else -1e9), trial.number),
        )
        best = self.state.best()
        for trial in trials[:_ROWS]:
            values = [_short(trial.parameters.get(name)) for name in names]
            state = trial.state if trial.phase in ("running", "ended") else trial.phase
            table.add_row(
                str(trial.number),
                state,
                f"{len(trial.epochs)}/{self.epochs}",
                self.score.shown(trial.best),
                *values,
                style="bold" if trial is best else None,
            )
        if len(trials) > _ROWS:
            table.caption = f"and {len(trials) - _ROWS} more"
        return Group(self.status(), table)

    def close(self) -> None:
        """Leave the last table standing."""
        if self._live is not None:
            self._live.update(self.draw(), refresh=True)
            self._live.stop()


def _parameters(trial: TrialRecord) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in trial.parameters.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
