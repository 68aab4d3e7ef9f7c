"""A training run whose storage takes seconds per checkpoint; run by ``test_checkpoints.py`` in a process of its own.

python slow_storage.py DATA_YAML FOLDER SECONDS key=value ...
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.flows.ray_cluster import connect, prepare_environment, wait_for_workers
from ray_jobs.settings import load_config_with_defaults
from ray_jobs.storage import FolderStorage


@dataclass(frozen=True)
class SlowStorage(FolderStorage):
    """A folder behind a slow line."""

    seconds: float = 0.0

    def put_folder(self, folder: Path, name: str) -> None:
        time.sleep(self.seconds)
        super().put_folder(folder, name)


def main() -> None:
    data_yaml, folder, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    settings = load_config_with_defaults(None, sys.argv[4:])
    index = check_dataset(read_description(data_yaml), show_progress=False).index
    prepare_environment(settings.cluster)
    connect(settings)
    from ray_jobs.flows.distributed import fit
    from ray_jobs.flows.worker import TrainingTask

    plan = wait_for_workers(settings, print)
    storage = SlowStorage(folder, seconds)
    print(fit(TrainingTask(settings, index, storage, b"", plan.cpus), plan, folder / "journal.jsonl"))


if __name__ == "__main__":
    main()
