"""What every place for checkpoints can do, a folder as well as a bucket."""

from pathlib import Path
from typing import Any, Protocol

from ray_jobs.storage.patience import Trouble


class Storage(Protocol):
    """A place that holds files under names such as ``run/checkpoints/epoch_00003/state.pt``."""

    @property
    def url(self) -> str:
        """The place as a person writes it."""

    @property
    def trouble(self) -> Trouble:
        """What this process had to wait for."""

    def ray_location(self) -> tuple[str, Any]:
        """``storage_path`` and ``storage_filesystem`` for Ray's ``RunConfig``."""

    def probe(self) -> None:
        """Write, read and delete a small file. Raises ``StorageError`` saying what is wrong and what to do."""

    def put_folder(self, folder: Path, name: str) -> None:
        """Store the files of a flat folder under ``name/``, verified."""

    def put_file(self, file: Path, name: str) -> None:
        """Store a file under ``name``, verified."""

    def get_file(self, name: str, target: Path) -> bool:
        """Fetch a file, verified, appearing whole or not at all. False where there is none of that name."""

    def folders_below(self, name: str) -> list[str]:
        """The names of the folders directly in ``name``; none where there is no such folder."""
