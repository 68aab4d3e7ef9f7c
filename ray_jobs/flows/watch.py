"""Who looks at a run while it goes on: a person at a terminal, and Prometheus. One call tells both.

In: a prepared run and its events. Out: a display, and metrics from the driver.
"""

from ray_jobs.errors import Diverged
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
        """Training begins: from here on this journal's events are told, and tracking is looked after."""
        self.stage("train")
        self._journal = journal
        self._seen = len(journal.events)
        self._measures.tracking(log.figures)
        if journal.epochs:
            self._measures.epoch(journal.epochs[-1], journal.best)

    def events(self) -> None:
        """Tell what befell the run since the last call."""
        new, self._seen = self._journal.events[self._seen :], len(self._journal.events)
        for event in new:
            if event.kind == "failure":
                self.display.restarted(self._journal.restarts)
                self._measures.restarted(event.text)
            elif event.kind == "rollback":
                self._measures.diverged()

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
        if isinstance(error, Diverged) or isinstance(error.__cause__ or error.__context__, Diverged):
            self._measures.diverged()
        self._end("stopped" if stopped else "failed")

    def _end(self, stage: RunStage) -> None:
        self._measures.stage(stage)
        self._measures.close()
        self.display.close()
        forget_progress(self._address)
