"""A search's own folder: ``runs/<run>/`` with its settings, its journal, and what came out.

An unfinished search of the same name, space and settings is continued. Another one, or one that is running now, is
refused. Nothing in it is ever overwritten by another search.
"""

import shutil
from pathlib import Path
from typing import Any

from ray_jobs.errors import RunExists
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.search.settings import SearchSettings, load_search_settings
from ray_jobs.settings import Settings, load_config_with_defaults

STATE = "search.json"
SEARCH_SETTINGS = "tune.yaml"


class SearchFolder(RunFolder):
    """The folder of a search; see ``RunFolder`` for claiming and releasing it."""

    state_file = STATE
    folders = ("trials",)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.journal = path / "trials.jsonl"
        self.search_settings = path / SEARCH_SETTINGS
        self.best_config = path / "best_config.yaml"
        self.table = path / "trials.csv"

    def check_free(self, settings: Settings, fingerprint: str | None = None) -> None:
        """As a run's, but a finished search may be asked for more."""
        if self.exists and self.state()["status"] == "finished":
            differences = settings.differences(load_config_with_defaults(self.settings))
            if differences or fingerprint not in (None, self.state()["fingerprint"]):
                raise RunExists(f"{self.path}: this search is finished; choose another run_name")
            return
        super().check_free(settings, fingerprint)

    def check_same_search(self, search: SearchSettings, settings: Settings) -> None:
        """Raise ``RunExists`` where the folder holds a search of another space, scheduler or metric."""
        if not self.search_settings.is_file():
            return
        there, _ = load_search_settings(self.search_settings, (), settings)
        if differences := search.differences(there):
            raise RunExists(
                [
                    f"{self.path}: holds a search with another space or rules; go on with --resume {self.name} and "
                    "without these changes, or choose another run_name (wanted, there):",
                    *(f"    {difference}" for difference in differences),
                ]
            )

    def begin(self, search: SearchSettings, settings: Settings, fingerprint: str) -> dict[str, Any]:
        """Take the folder for this process; returns its state. Raises ``RunExists`` or ``StorageError``."""
        self.claim(settings, fingerprint)
        try:
            self.check_same_search(search, settings)
        except RunExists:
            self.release()
            raise
        search.save(self.search_settings)  # how many trials and how much at a time may have changed
        return self.state()

    def discard(self) -> None:
        """Remove a search that has no trial; one that has stays."""
        if not self.journal.is_file() or not self.journal.stat().st_size:
            shutil.rmtree(self.path, ignore_errors=True)


def find_search(run: str, output_dir: Path) -> SearchFolder:
    """The folder of a search given by its name or its path. Raises ``RunExists`` where there is none."""
    for path in (Path(run), output_dir / run):
        if (path / STATE).is_file():
            return SearchFolder(path.resolve())
    raise RunExists(f"{run}: no such search in {output_dir.resolve()}; give the name of a folder in it, or a path")
