"""A run's own folder: who may use its name, and what lies where in it.

An unfinished run of the same name and settings is continued. A finished one, another one, or one that is running now
is refused. Nothing in it is ever overwritten by another run.
"""

import fcntl
import json
import os
import time
import uuid
from pathlib import Path
from typing import IO, Any, Self

from ray_jobs.errors import RunExists, StorageError
from ray_jobs.settings import Settings, load_config_with_defaults

STATE = "run.json"


class RunFolder:
    """``runs/<run>/`` with its settings, journal, weights, samples, plots and summary."""

    state_file = STATE
    folders: tuple[str, ...] = ("weights", "samples", "plots")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.settings = path / "settings.yaml"
        self.journal = path / "journal.jsonl"
        self.weights = path / "weights"
        self.samples = path / "samples"
        self.plots = path / "plots"
        self.detections = path / "detections.npz"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self._lock: IO[str] | None = None
        self._precision: str | None = None

    @property
    def exists(self) -> bool:
        """Whether a run of this name was ever begun."""
        return (self.path / self.state_file).is_file()

    def state(self) -> dict[str, Any]:
        """``status`` (running, finished, failed, stopped), ``fingerprint`` of the data set, and times.

        Raises ``RunExists`` where the file is damaged.
        """
        file = self.path / self.state_file
        try:
            state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if not all(isinstance(state[key], str) for key in ("status", "uid", "fingerprint")):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RunExists(f"{file}: is damaged; choose another run_name (what lies beside it stays)") from None
        return state

    def check_free(self, settings: Settings, fingerprint: str | None = None) -> None:
        """Raise ``RunExists`` where this name cannot be used by a run of these settings and this data set."""
        if not self.exists:
            if self.path.exists() and any(not file.name.startswith(".") for file in self.path.iterdir()):
                raise RunExists(f"{self.path}: is not empty and holds no run; choose another run_name")
            return
        state = self.state()
        if state["status"] == "finished":
            raise RunExists(f"{self.path}: this run is finished; choose another run_name")
        differences = settings.differences(load_config_with_defaults(self.settings))
        if differences:
            raise RunExists(
                [
                    f"{self.path}: an unfinished run has this name and other settings; choose another run_name, "
                    f"or go on with --resume {self.name} and none of these changes (wanted, there):",
                    *(f"    {difference}" for difference in differences),
                ]
            )
        if fingerprint and state["fingerprint"] != fingerprint:
            raise RunExists(
                f"{self.path}: this run was begun on a data set with fingerprint {state['fingerprint'][:12]}, not "
                f"{fingerprint[:12]}; put the data back, or choose another run_name"
            )

    def claim(self, settings: Settings, fingerprint: str) -> Self:
        """Take the folder for this process, new or to be continued. Raises ``RunExists`` or ``StorageError``."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a", encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written to: {error.strerror}; choose another output_dir"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise RunExists(f"{self.path}: this run is running now; wait for it, or choose another run_name") from None
        self._lock = lock
        try:
            self.check_free(settings, fingerprint)
        except RunExists:
            self.release()
            raise
        if not self.exists:
            settings.save(self.settings)
            self.write_state(status="running", uid=uuid.uuid4().hex, fingerprint=fingerprint, started=time.time())
        else:
            self.write_state(status="running")
        for folder in self.folders:
            (self.path / folder).mkdir(exist_ok=True)
        return self

    def record_precision(self, settings: Settings, precision: str) -> None:
        """Write down what ``precision: auto`` has become, so that the run can be repeated."""
        if self._precision is None and settings.precision == "auto" and precision in ("fp32", "bf16"):
            self._precision = precision
            partial = self.path / f".{self.settings.name}.partial"
            settings.model_copy(update={"precision": precision}).save(partial)
            partial.replace(self.settings)

    def write_state(self, **changes: Any) -> None:
        """Change entries of ``run.json``, whole or not at all."""
        state = {**(self.state() if self.exists else {}), **changes, "pid": os.getpid()}
        partial = self.path / f".{self.state_file}.partial"
        partial.write_text(json.dumps(state, indent=1), encoding="utf-8")
        partial.replace(self.path / self.state_file)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        self.summary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

    def release(self) -> None:
        """Let another process take the folder."""
        if self._lock:
            self._lock.close()
            self._lock = None


def find_run(run: str, output_dir: Path) -> RunFolder:
    """The folder of a run given by its name or its path. Raises ``RunExists`` where there is none to continue."""
    for path in (Path(run), output_dir / run):
        if (path / STATE).is_file():
            return RunFolder(path.resolve())
    raise RunExists(
        f"--resume {run}: no such run in {output_dir.resolve()}; give the name of a folder in it, or a path"
    )
