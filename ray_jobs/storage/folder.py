"""Checkpoints in a folder, on a disk that every node sees."""

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.errors import DiskFull, StorageError
from ray_jobs.storage.files import copy_synced, room_for
from ray_jobs.storage.patience import Trouble


@dataclass(frozen=True)
class FolderStorage:
    """A folder on a disk that every node sees (or the only node's own)."""

    root: Path

    @property
    def url(self) -> str:
        """The absolute path."""
        return str(self.root.resolve())

    @property
    def trouble(self) -> Trouble:
        """None: a disk is there or it is not."""
        return Trouble()

    def ray_location(self) -> tuple[str, Any]:
        """The path; Ray finds the file system itself."""
        return self.url, None

    def probe(self) -> None:
        """Write, read and delete a small file."""
        file = self.root / f".probe-{uuid.uuid4().hex}"
        made = not self.root.exists()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"probe")
            intact = file.read_bytes() == b"probe"
            file.unlink()
            if made:
                self.root.rmdir()
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(f"{self.root}: cannot be written to: {reason}; choose another output_dir") from None
        if not intact:
            raise StorageError(f"{self.root}: does not give back what was written; choose another output_dir")

    def put_folder(self, folder: Path, name: str) -> None:
        """Copy, then rename, so that a checkpoint is there as a whole or not at all."""
        target = self.root / name
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        files = sorted(folder.iterdir())
        try:
            with room_for(sum(file.stat().st_size for file in files), partial):
                for file in files:
                    copy_synced(file, partial / file.name)
        except DiskFull:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(target, ignore_errors=True)  # what a lost report left behind under this name
        partial.replace(target)

    def put_file(self, file: Path, name: str) -> None:
        """Copy, then rename."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")  # two may write at once
        with room_for(file.stat().st_size, target.parent):
            copy_synced(file, partial)
        partial.replace(target)

    def folders_below(self, name: str) -> list[str]:
        """Subfolders whose names do not begin with a dot."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")

    def get_file(self, name: str, target: Path) -> bool:
        """Copy a file."""
        source = self.root / name
        if not source.is_file():
            return False
        partial = target.with_name(f".{target.name}.partial")
        copy_synced(source, partial)
        partial.replace(target)
        return True
