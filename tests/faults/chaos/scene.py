"""One fault in a run: what was seen of it, how long it took to be over it, and what it cost.

In: a run that trains, and a fault. Out: an ``Outcome``, which is a line of the table.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray_jobs.errors import DamagedCheckpoint
from ray_jobs.flows.checkpoints import fetch_checkpoint
from tests.faults.chaos.containers import PATIENCE_S, Site, Submission
from tests.faults.drive import wait_until


class NoEffect(AssertionError):
    """A fault that nobody felt proves nothing."""


@dataclass
class Scene:
    """A run that trains, as a fault finds it. ``driver`` is replaced where a fault needs another submission."""

    site: Site
    run: str
    driver: Submission
    chance: random.Random
    ended_at: float | None = None  # when the harm was taken away, for a fault that lasts

    def epochs(self) -> list[dict[str, Any]]:
        """The journal's epochs, repeated ones too."""
        return [line for line in self.site.journal(self.run) if line["kind"] == "epoch"]

    def reached(self) -> int:
        """The last epoch that was ever reported."""
        return max((line["metrics"]["epoch"] for line in self.epochs()), default=0)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for what a fault does; that it does not happen within a quarter of an hour fails the run."""
        try:
            return wait_until(condition, what, PATIENCE_S)
        except AssertionError as error:
            raise NoEffect(str(error)) from None

    def failure_after(self, began: float) -> str:
        """Wait until the run has said that it lost workers; its words for it."""

        def failures() -> list[str]:
            lines = [line for line in self.site.journal(self.run) if line["time"] > began]
            return ["; ".join(line["causes"]) for line in lines if line["kind"] == "failure"]

        return str(self.until(failures, "the run says that it lost workers")[0])

    def stands_still(self, seconds: float) -> str:
        """Let the harm last; no epoch may end meanwhile but one that was ending."""
        time.sleep(2)
        before, began = len(self.epochs()), time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(0.2)
        if len(self.epochs()) > before:
            raise NoEffect("epochs ended all the same")
        return f"no epoch for {seconds + 2:.0f} s"

    def mended(self) -> None:
        """The harm ends now; until then nobody could be over it."""
        self.ended_at = time.time()

    def resubmit(self) -> None:
        """The same command again, as a person would give it."""
        self.mended()
        self.driver.__exit__()
        self.driver = self.site.submit(self.run)
        self.driver.wait_for(f"going on with {self.run} after epoch", timeout=PATIENCE_S)


@dataclass(frozen=True)
class Fault:
    """What is done (``do`` returns what was seen of it), and until what the run is over it besides a new epoch."""

    name: str
    do: Callable[[Scene], str]
    stored: bool = False  # a new checkpoint was stored
    tracked: bool = False  # MLflow has everything


@dataclass
class Outcome:
    """A line of the table. Times in seconds; ``lost`` names what is gone for good."""

    at: float
    name: str
    effect: str = ""
    lasted: float = 0.0
    recovered: float = 0.0
    repeated: int = 0
    lost: list[str] = field(default_factory=list)


def inflict(fault: Fault, scene: Scene, started: float) -> Outcome:
    """Do it, wait until the run is over it, and count what it cost. Raises ``NoEffect``."""
    scene.ended_at = None
    began = time.time()
    outcome = Outcome(began - started, fault.name)
    outcome.effect = fault.do(scene)
    seen, reached = time.time(), scene.reached()
    over = scene.until(lambda: _over(fault, scene, seen, reached), f"a new epoch after: {fault.name}")
    outcome.lasted = (scene.ended_at or began) - began
    outcome.recovered = over - (scene.ended_at or began)
    outcome.repeated, differing = _repeated(scene.epochs(), began)
    outcome.lost = [f"epoch {number}" for number in differing] + _missing(scene)
    return outcome


def _over(fault: Fault, scene: Scene, seen: float, reached: int) -> float | None:
    if scene.driver.ended:
        assert scene.driver.process.returncode == 0, scene.driver.said[-3000:]
        return time.time()
    new = [line for line in scene.epochs() if line["time"] > seen and line["metrics"]["epoch"] > reached]
    if fault.stored:
        new = [line for line in new if line["checkpoint"]]
    if not new or (fault.tracked and scene.site.unsent(scene.run)):
        return None
    return time.time() if fault.tracked else float(new[0]["time"])


def _repeated(lines: list[dict[str, Any]], began: float) -> tuple[int, list[int]]:
    """How many epochs were done again since ``began``, and which of them came out otherwise."""
    known: dict[int, str] = {}
    count, differing = 0, []
    for line in lines:
        number, digest = line["metrics"]["epoch"], line["weights_digests"][0]
        if line["time"] > began and number in known:
            count += 1
            if known[number] != digest:
                differing.append(number)
        known[number] = digest
    return count, differing


def _missing(scene: Scene) -> list[str]:
    """The newest checkpoint that the run says it has stored, where it is not there as it was written."""
    names = [line["checkpoint"] for line in scene.epochs() if line["checkpoint"]]
    with TemporaryDirectory() as folder:
        try:
            fetch_checkpoint(scene.site.storage(scene.run), names[-1], Path(folder))
        except DamagedCheckpoint as error:
            return [str(error)]
    return []


def table(outcomes: list[Outcome]) -> str:
    """All of them, in Markdown."""
    rows = [
        "| at | fault | what was seen | lasted | recovered in | epochs repeated | lost |",
        "|--:|---|---|--:|--:|--:|---|",
    ]
    rows += [
        f"| {int(o.at) // 60}:{int(o.at) % 60:02d} | {o.name} | {o.effect} | {f'{o.lasted:.0f} s' if o.lasted else ''} "
        f"| {o.recovered:.0f} s | {o.repeated} | {'; '.join(o.lost) or 'nothing'} |"
        for o in outcomes
    ]
    return "\n".join(rows)
