"""Who may write to a run's place in storage: one run, and one driver of it at a time.

Run folders are a driver's own, storage may be shared: without this, a run of the same name from elsewhere would be
continued with other settings and its checkpoints deleted, or two drivers would train it at once. A lock cannot be had
from an object store (a conditional write is not atomic on every one), so a driver writes its name, waits, and looks
whether it is still there; then it keeps writing a growing number. Clocks are not compared.
"""

import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.errors import PlatformError, RunExists
from ray_jobs.flows.checkpoints import EXPERIMENT
from ray_jobs.storage import Storage, in_a_hurry

OWNER = "owner.json"  # names the run that a place in storage belongs to, and the driver that works on it
HEARTBEAT_S = 4.0
SETTLE_S = 1.5  # what two writers may lie apart for each to see the other
RELEASE_S = (
    3.0  # a driver that ends does not wait longer for a store that is away; the next one waits for the heartbeat
)


@dataclass(frozen=True)
class Pace:
    """Seconds between heartbeats, and between writing one's name and believing it."""

    heartbeat_s: float = HEARTBEAT_S
    settle_s: float = SETTLE_S


def claim_storage(storage: Storage, uid: str) -> None:
    """Make this place the run's own. Raises ``RunExists`` where another run keeps its checkpoints there."""
    owner = _read(storage)
    with tempfile.TemporaryDirectory() as folder:
        snapshot = f"{EXPERIMENT}/checkpoint_manager_snapshot.json"
        taken = not owner and storage.get_file(snapshot, Path(folder) / "snapshot")
    if taken or owner.get("run") not in (None, uid):
        raise RunExists(f"{storage.url}: another run keeps its checkpoints there; choose another run_name")
    if not owner:
        _write(storage, {"run": uid})


class Lease:
    """The right to drive a run, kept by a heartbeat until ``release``."""

    def __init__(self, storage: Storage, uid: str, pace: Pace = Pace()) -> None:
        """Take it. Raises ``RunExists`` where another run or another living driver has it; waits for up to 15 s."""
        self._storage, self._pace = storage, pace
        self._mine = {"run": uid, "driver": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
        self._beats = 0
        self.lost_to: str | None = None
        self._released = threading.Event()
        claim_storage(storage, uid)
        other = _read(storage)
        if _may_live(other) and self._beats_on(other):
            raise RunExists(f"{storage.url}: this run is driven from {_who(other)} now; stop that, or wait for it")
        self._beat()
        time.sleep(pace.settle_s)
        self._check()
        if self.lost_to:
            raise RunExists(f"{storage.url}: {self.lost_to} started this run at the same moment and has it")
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def release(self) -> None:
        """Let another driver have it at once. Ends within ``RELEASE_S`` seconds, whatever the store does."""
        if not self._released.is_set():
            self._released.set()
            if self.lost_to is None:
                give_up = threading.Thread(target=self._give_up, name="release", daemon=True)
                give_up.start()
                give_up.join(RELEASE_S)

    def _give_up(self) -> None:
        _quietly(lambda: _write(in_a_hurry(self._storage, RELEASE_S), {"run": self._mine["run"]}))

    def _beats_on(self, other: dict[str, Any]) -> bool:
        deadline = time.monotonic() + 2.5 * self._pace.heartbeat_s
        while time.monotonic() < deadline:
            time.sleep(self._pace.heartbeat_s / 4)
            now = _read(self._storage)
            if not now.get("driver"):
                return False  # given up meanwhile
            if now != other:
                return True
        return False

    def _keep(self) -> None:
        while not self._released.wait(self._pace.heartbeat_s) and self.lost_to is None:
            _quietly(self._check)
            if self.lost_to is None and not self._released.is_set():
                _quietly(self._beat)

    def _check(self) -> None:
        now = _read(self._storage)
        if now.get("driver") not in (None, self._mine["driver"]):
            self.lost_to = _who(now)

    def _beat(self) -> None:
        self._beats += 1
        _write(self._storage, {**self._mine, "beat": self._beats})


def _may_live(owner: dict[str, Any]) -> bool:
    """False where there is no other driver, or it was a process of this machine that is gone."""
    if not owner.get("driver"):
        return False
    here = owner.get("host") == socket.gethostname()
    return not here or Path(f"/proc/{owner.get('pid')}").exists()


def _who(owner: dict[str, Any]) -> str:
    return f"{owner.get('host')}, process {owner.get('pid')}"


def _read(storage: Storage) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / OWNER
        if not storage.get_file(OWNER, file):
            return {}
        try:
            owner: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(owner["run"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RunExists(f"{storage.url}/{OWNER}: is damaged; choose another run_name") from None
        return owner


def _write(storage: Storage, owner: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / OWNER
        file.write_text(json.dumps(owner), encoding="utf-8")
        storage.put_file(file, OWNER)


def _quietly(call: Callable[[], None]) -> None:
    """A store that is away takes the heartbeat with it, and everybody else's chance to see that."""
    try:
        call()
    except (PlatformError, OSError):
        return
