"""A training run in processes of its own that a test may hurt: driver, workers, journal, checkpoints."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ray_jobs.flows.checkpoints import EXPERIMENT, fetch_checkpoint
from ray_jobs.storage import Storage

MARK = "XRAY_FAULT_TEST"
EPOCHS = 8
# Two ranks on two cores, an epoch of about a second where nothing else runs.
SMALL = [
    f"epochs={EPOCHS}",
    "img_size=64",
    "batch_size=18",
    "pretrained=false",
    "device=cpu",
    "precision=fp32",  # not what a probe finds: runs are compared bit by bit
    "workers=0",
    "samples=0",
    "keep=20",
    "export.onnx=false",
    "cluster.num_workers=2",
    "cluster.cpus_per_worker=1",
]
LONG_S = 400.0  # for what takes seconds on a machine that does nothing else


def clean_environment(**more: str) -> dict[str, str]:
    """Without what a test's own process may have set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "AWS_"))}
    return {**clean, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}


class Drive:
    """``python -m ray_jobs.train`` with everything it starts; ends all of it when it is closed."""

    def __init__(
        self,
        folder: Path,
        *arguments: str | Path,
        tracking: bool = False,
        train: Sequence[str] = (sys.executable, "-m", "ray_jobs.train"),
        **environment: str,
    ) -> None:
        """``environment`` may name the cluster to join; without it Ray is started inside the driver."""
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self._heard = threading.Condition()
        options = [] if tracking else ["tracking.uri=none"]
        command = [*train, *map(str, arguments), *options]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(**{MARK: self.mark}, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Drive":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (self.process.pid, *self.processes()):
            _signal(pid, signal.SIGCONT)
            _signal(pid, signal.SIGKILL)
        self.process.wait(30)
        self._reader.join(10)

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as output:
            for line in output:
                with self._heard:
                    self.lines.append(line.rstrip())
                    self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()

    @property
    def said(self) -> str:
        """Everything it has said."""
        return "\n".join(self.lines)

    def wait_for(self, text: str, after: int = 0, timeout: float = LONG_S) -> int:
        """Wait for a line with this text, from line number ``after`` on; returns the number of the next line."""
        deadline = time.monotonic() + timeout
        with self._heard:
            while True:
                for number in range(after, len(self.lines)):
                    if text in self.lines[number]:
                        return number + 1
                ended = not self._reader.is_alive()
                assert not ended, f"it ended without {text!r}:\n{self.said}"
                assert time.monotonic() < deadline, f"no {text!r} in {timeout:.0f} s:\n{self.said}"
                self._heard.wait(0.5)

    def end(self, code: int = 0, timeout: float = LONG_S) -> str:
        """Wait for the driver to end with this exit code; returns what it said."""
        assert self.process.wait(timeout) == code, self.said
        self._reader.join(10)
        assert "Traceback" not in self.said, self.said
        return self.said

    def kill(self) -> None:
        """SIGKILL to the driver alone."""
        _signal(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def processes(self, title: str = "") -> list[int]:
        """Processes that this run has started (or that run in its cluster, for it) whose title has these words."""
        return [pid for pid in marked(self.mark) if title in _title(pid)]

    def workers(self) -> list[int]:
        """The processes of the training workers."""
        return self.processes("RayTrainWorker")


def marked(mark: str) -> list[int]:
    """Processes whose environment has this mark."""
    return [pid for pid in _all_processes() if _belongs(pid, mark)]


def _all_processes() -> Iterable[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _belongs(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def journal(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's journal."""
    path = run / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def epochs(run: Path) -> dict[int, str]:
    """The digest of rank 0's weights after each epoch; a repeated one counts as it was the last time."""
    lines = [line for line in journal(run) if line["kind"] == "epoch"]
    for line in lines:
        assert len(set(line["weights_digests"])) == 1, line
    return {line["metrics"]["epoch"]: line["weights_digests"][0] for line in lines}


def stored_checkpoints(run: Path) -> list[str]:
    """The checkpoints that the journal says were stored, in order, each once."""
    names = [line["checkpoint"] for line in journal(run) if line["kind"] == "epoch" and line["checkpoint"]]
    return sorted(set(names))


def verify_checkpoints(storage: Storage, names: list[str], scratch: Path) -> None:
    """Every one of them is there and is what its manifest says, by SHA-256."""
    assert names
    for name in names:
        manifest = fetch_checkpoint(storage, name, scratch / name)
        assert {"state.pt", "best.pt", "results.csv"} <= set(manifest["files"]), name
    kept = [name for name in storage.folders_below(EXPERIMENT) if name.startswith("epoch_")]
    assert set(kept) >= set(names)


def wait_until(condition: Callable[[], Any], what: str, timeout: float = LONG_S) -> Any:
    """Poll until a condition holds; returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.1)
    return value
