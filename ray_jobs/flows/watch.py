"""Who looks at a run while it goes on: a person at a terminal, and Prometheus. One call tells both.

In: a prepared run and its events. Out: a display, and metrics from the driver.
"""

from ray_jobs.errors import PlatformError
from ray_jobs.flows.assessment import Assessment
from ray_jobs.flows.display import Display
from ray_jobs.flows.journal import Epoch, JournalReader
from ray_jobs.flows.measures import RunMeasures, RunStage
from ray_jobs.flows.preparation import Prepared
from ray_jobs.flows.progress import forget_progress, read_progress
from ray_jobs.flows.run_log import RunLog


class Watch:
    """Tells a run's events on. Nothing here blocks the run or raises into it."""

    def __init__(self, prepared: Prepared, display: Display, began: float) -> None:
        """``began``: Unix time of the command's start."""
        self.display = display
        self._address = prepared.storage.url
        self._measures = RunMeasures(prepared.run.name, began)
        self._measures.plan(prepared.settings.epochs, prepared.plan.max_workers)
        self._measures.data(prepared.report, prepared.check_s)
        forget_progress(self._address)
        display.begin(prepared.run.name, prepared.settings.epochs, lambda: read_progress(self._address))
        self.stage("start")

    def stage(self, stage: RunStage) -> None:
        """The run enters a stage."""
        self.display.stage(stage)
        self._measures.stage(stage)

    def follow(self, journal: JournalReader, log: RunLog) -> None:
        """Training begins: restarts are told as the journal has them, and tracking is looked after."""
        self.stage("train")
        self._journal = journal
        journal.on_restart = self._restarted
        self._measures.tracking(log.figures)
        if journal.epochs:
            self._measures.epoch(journal.epochs[-1], journal.best)

    def _restarted(self, words: str) -> None:
        self.display.restarted(self._journal.restarts)
        self._measures.restarted(words)

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is finished."""
        self.display.epoch(epoch, self._journal.best)
        self._measures.epoch(epoch, self._journal.best)

    def assessed(self, assessment: Assessment) -> None:
        """The best weights were tested."""
        self._measures.tested(assessment.metrics.get("map50"))

    def finished(self, registered: bool) -> None:
        """The run is done."""
        if registered:
            self._measures.registered()
        self._end("finished")

    def failed(self, error: BaseException, stopped: bool) -> None:
        """The run ended without a result."""
        self._measures.failed(str(error) if isinstance(error, PlatformError) else "")
        self._end("stopped" if stopped else "failed")

    def _end(self, stage: RunStage) -> None:
        self._measures.stage(stage)
        self._measures.close()
        self.display.close()
        forget_progress(self._address)
