"""Chaos: a seeded random schedule of faults against training runs on three containers, and the promise held against it.

    make chaos                                      # needs root and a Debian machine; see .ci/cluster.sh
    python -m tests.faults.chaos --seed 7 --minutes 30    # where an engine answers

One run that nothing happens to comes first. Then runs of the same settings are trained, one after the other, and hurt
again and again, until the minutes are over and the faults have all been done, each kind once before any comes twice.
Every run must end with the weights that the first one had after every epoch, with its test figures, and with a record
in MLflow in which nothing is missing or twice. Exit code 0: the promise holds; 1: it does not, or a fault had no
effect.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import DATA_DIR
from tests.faults.chaos.containers import MLFLOW, PATIENCE_S, Site
from tests.faults.chaos.kinds import FAULTS
from tests.faults.chaos.scene import Fault, NoEffect, Outcome, Scene, inflict, table
from tests.faults.drive import epochs
from tests.tracking.contents import contents

TAIL = 4  # a fault begins no later than so many epochs before the end, so that the run itself is over it


class Promise(AssertionError):
    """The result is not the one that the run would have had."""


def schedule(chance: random.Random, kinds: Sequence[Fault]) -> Iterator[Fault]:
    """Every kind once in random order, then again in another, without end."""
    while True:
        yield from chance.sample(kinds, len(kinds))


def calm(site: Site) -> dict[str, Any]:
    """What a run that nothing happens to comes to."""
    with site.submit("calm") as drive:
        drive.end(timeout=3600)
    return result(site, "calm")


def result(site: Site, run: str) -> dict[str, Any]:
    """The weights after every epoch and the figures on the test images."""
    summary = json.loads((site.runs / run / "summary.json").read_text())
    return {"weights": epochs(site.runs / run), "best_epoch": summary["best_epoch"], "test": summary["test"]}


def hurt(site: Site, run: str, faults: Iterator[Fault], clock: "Clock", outcomes: list[Outcome]) -> None:
    """One run, from its start to its end, with faults as long as the clock wants more."""
    scene = Scene(site, run, site.submit(run), clock.chance)
    try:
        while clock.wants_more(outcomes):
            at = scene.reached() + clock.chance.choice((1, 2))
            scene.until(lambda: scene.driver.ended or scene.reached() >= at, f"epoch {at}")  # noqa: B023
            if scene.driver.ended or scene.reached() > site.epochs - TAIL:
                break
            time.sleep(clock.chance.uniform(0, 1.5))  # any moment of an epoch
            fault = next(faults)
            print(f"{clock.now()} {run} epoch {scene.reached()}: {fault.name} ...", flush=True)
            outcome = inflict(fault, scene, clock.started)
            print(f"{clock.now()} {outcome.effect}; over it in {outcome.recovered:.0f} s", flush=True)
            outcomes.append(outcome)
        scene.driver.end(timeout=4 * PATIENCE_S)
    except BaseException:
        print("\n".join(scene.driver.lines[-40:]), file=sys.stderr)
        raise
    finally:
        scene.driver.__exit__()


class Clock:
    """When to stop: after ``minutes`` and ``faults``, both."""

    def __init__(self, seed: int, minutes: float, faults: int) -> None:
        self.chance = random.Random(seed)
        self._minutes, self._faults = minutes, faults
        self.started = time.time()

    def wants_more(self, outcomes: list[Outcome]) -> bool:
        return len(outcomes) < self._faults or time.time() - self.started < 60 * self._minutes

    def now(self) -> str:
        seconds = int(time.time() - self.started)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"


def compare(site: Site, run: str, expected: dict[str, Any]) -> None:
    """Raise ``Promise`` where a run did not end as the calm one did."""
    found = result(site, run)
    for what, value in expected.items():
        if found[what] != value:
            raise Promise(f"{run}: {what}: {found[what]}\nwithout faults: {value}")
    [record] = contents(MLFLOW, run_name=run)  # one, or the driver that went on began another
    if record["status"] != "FINISHED":
        raise Promise(f"{run}: MLflow says {record['status']}")
    for name, points in record["points"].items():
        steps = [step for step, _, _ in points]
        whole = list(range(1, site.epochs + 1)) if name.startswith(("train/", "val/")) else sorted(set(steps))
        if not name.startswith("system/") and steps != whole:
            raise Promise(f"{run}: MLflow has {name} at {steps}")
    missing = {"weights/best.pt", "weights/best.onnx", "results.csv"} - set(record["files"])
    if missing:
        raise Promise(f"{run}: MLflow has no {missing}")


def chaos(site: Site, clock: Clock, kinds: Sequence[Fault]) -> None:
    """Runs and faults until the clock says that it is enough."""
    print(f"a run of {site.epochs} epochs that nothing happens to ...", flush=True)
    expected = calm(site)
    faults, outcomes, number = schedule(clock.chance, kinds), list[Outcome](), 0
    clock.started = time.time()
    try:
        while clock.wants_more(outcomes):
            number += 1
            hurt(site, f"chaos-{number}", faults, clock, outcomes)
            compare(site, f"chaos-{number}", expected)
            print(f"{clock.now()} chaos-{number} ended as the run that nothing happened to", flush=True)
    finally:
        print(f"\n{table(outcomes)}\n")
    lost = [f"{outcome.name}: {each}" for outcome in outcomes for each in outcome.lost]
    if lost:
        raise Promise("; ".join(lost))
    print(
        f"{len(outcomes)} faults in {number} runs of {site.epochs} epochs, {clock.now().strip()} minutes: weights "
        "after every epoch, test figures and MLflow's record are those of the run that nothing happened to"
    )


def main() -> int:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the schedule (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="at least so long (%(default)s)")
    parser.add_argument("--faults", type=int, default=len(FAULTS), help="at least so many (%(default)s: all kinds)")
    parser.add_argument("--epochs", type=int, default=80, help="of every run (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORDS", help="faults with these words in their name, to try one")
    options = parser.parse_args()
    kinds = [fault for fault in FAULTS if options.only in fault.name]
    if not kinds:
        parser.error("--only: there are " + "; ".join(fault.name for fault in FAULTS))
    folder = Path(tempfile.mkdtemp(prefix="xray-chaos-"))
    folder.chmod(0o755)
    clock = Clock(options.seed, options.minutes, options.faults)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is taken down
    print(f"seed {options.seed}; three containers, their store and MLflow come up ...", flush=True)
    site = Site(folder, DATA_DIR / "nih-cxr8-boxes-mini", options.epochs)
    try:
        chaos(site, clock, kinds)
    except (NoEffect, Promise, AssertionError) as error:
        print(f"{type(error).__name__}: {error}\nlogs: {folder}", file=sys.stderr)
        return 1
    finally:
        site.close()
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
