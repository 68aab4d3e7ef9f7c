"""The spool: what happened in a run, in order, in one file that needs no network.

In: records, dictionaries with a ``kind``. Out: ``<run_dir>/tracking/spool.jsonl``, one JSON line per record, only ever
appended to, and beside it ``cursor.json``, which holds for each server how far it has confirmed.

A process that is killed while it writes leaves a last line without an end. It was never acknowledged; readers do not
see it and the next writer cuts it off.
"""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray_jobs.errors import BadInput

Record = dict[str, Any]

FOLDER = "tracking"
SPOOL_NAME = "spool.jsonl"
CURSOR_NAME = "cursor.json"
REFUSED_NAME = "refused.jsonl"


def spool_path(run_dir: Path) -> Path:
    """Where the spool of a run lies."""
    return run_dir / FOLDER / SPOOL_NAME


class Spool:
    """The writing end, safe to use from several threads of one process."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises OSError where that is impossible."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()
        os.ftruncate(self._file, _end_of_last_line(path))

    def append(self, record: Record) -> None:
        """Write one record whole or not at all; raises OSError (disk full) with the file as it was.

        It reaches the operating system here, so it survives the death of the process, and the disk with ``sync``.
        """
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            before = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError(f"{self.path}: disk full: {len(line)} bytes did not fit")
            except OSError:
                os.ftruncate(self._file, before)
                raise

    def sync(self) -> None:
        """Bring the records to the disk; takes as long as the disk takes, so never call it from training."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def read_spool(path: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """Each whole record from byte ``offset`` on, with the offset where it ends.

    Raises BadInput with file and byte for a line in the middle that is no record.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield _parse(line, path, offset), offset + len(line)
            offset += len(line)


def _parse(line: bytes, path: Path, offset: int) -> Record:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("kind"), str):
            return record
    except ValueError:
        pass
    raise BadInput(
        f"{path}: damaged at byte {offset}: {line[:60]!r}; remove this line and run the command again to send the rest"
    )


def _end_of_last_line(path: Path) -> int:
    """The size of the file up to and including its last line end."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
    return 0


@dataclass
class Cursor:
    """How far one server has confirmed a spool, and the names it gave: ``offset`` in bytes, ``records`` in lines.

    ``children`` are the ids of runs inside this one, by the names that the spool calls them.
    """

    offset: int = 0
    records: int = 0
    run_id: str | None = None
    experiment_id: str | None = None
    registered: dict[str, str] | None = None
    children: dict[str, str] = field(default_factory=dict)


class CursorFile:
    """``cursor.json``: one cursor per server, so that sending to a second one sends everything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, server: str) -> Cursor:
        """The cursor of ``server``; a fresh one where there is none, since a replay repeats nothing."""
        try:
            return Cursor(**self._read()[server])
        except (KeyError, TypeError):
            return Cursor()

    def save(self, server: str, cursor: Cursor) -> None:
        """Replace the file in one step."""
        cursors = self._read() | {server: asdict(cursor)}
        fresh = self.path.with_suffix(".json.new")
        fresh.write_text(json.dumps(cursors, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.path)

    def servers(self) -> list[str]:
        """The servers that something was sent to."""
        return list(self._read())

    def _read(self) -> dict[str, Any]:
        try:
            cursors = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # missing, or damaged by a full disk
            return {}
        return cursors if isinstance(cursors, dict) else {}
