"""Every error this project raises on purpose, in one tree.

A job catches ``PlatformError`` at its door, prints its message and exits with its ``exit_code``.
Anything else that comes out is a defect and keeps its traceback.
"""

from collections.abc import Sequence


class PlatformError(Exception):
    """Something failed while running; the message says what, where, and what to do about it."""

    exit_code = 1


class BadInput(PlatformError):
    """What the user gave cannot be used. Carries every problem found, one line each."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class SettingsError(BadInput):
    """A settings file or a ``key=value`` override is wrong."""


class DataError(BadInput):
    """A data set cannot be trained on as it is."""


class WeightsError(BadInput):
    """A weights file is missing, broken, unsafe or of another model."""


class StorageError(BadInput):
    """A place to write to (a folder or an S3 bucket) cannot be used."""


class RunExists(BadInput):
    """The run's name is taken by a finished run, by a different one, or by one that is running."""


class ClusterError(PlatformError):
    """The Ray cluster cannot be reached or does not have what the run needs."""


class TrainingError(PlatformError):
    """Training ended without a result."""


class Diverged(TrainingError):
    """Losses, gradients or weights are not finite any more; an earlier checkpoint is good."""


class DamagedObject(PlatformError):
    """What a store gives back is not what was stored there."""


class DamagedCheckpoint(TrainingError):
    """A stored checkpoint is cut short, changed, incomplete or of another model; an earlier one may be good."""


class StoreOutage(PlatformError):
    """A store that worked when the run started has failed for longer than the run is told to wait."""


class DiskFull(PlatformError):
    """No room is left where something has to be written: the message names place, need and what is free."""


class ExportError(PlatformError):
    """The exported model does not agree with the trained one."""


class TrackingError(PlatformError):
    """The tracking server refused or could not be reached. Never stops a training run."""
