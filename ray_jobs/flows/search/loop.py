"""The search itself: asks what to try, gives it to a free slot, answers every message, and writes it all down first.

In: slots, a searcher, a scheduler, a journal that may hold the beginning. Out: every trial ended, in the journal.
Nobody polls: Ray says when a trial has something to say.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray_jobs.errors import ClusterError
from ray_jobs.flows.search.journal import Event, SearchJournal, SearchState, TrialRecord
from ray_jobs.flows.search.slots import Slot, SlotBroke, hear
from ray_jobs.flows.search.worker import Message, TrialTask
from ray_jobs.search.schedulers import Order

_TICK_S = 0.5
OUT_OF_TIME = "out of time"


@dataclass(frozen=True)
class Rules:
    """When the search ends and how often things are tried; see ``SearchSettings``. Times are Unix times or seconds."""

    samples: int
    deadline: float | None = None
    max_failures: int = 3
    checkpoint_s: float | None = 60.0  # None: only where trials wait
    wait_s: float = 60.0


class Search:
    """One search, begun or gone on with."""

    def __init__(
        self,
        state: SearchState,
        journal: SearchJournal,
        slots: list[Slot],
        rules: Rules,
        make_task: Callable[[TrialRecord], TrialTask],
        score: Callable[[TrialRecord, Mapping[str, float]], float],
        on_event: Callable[[Event], None] = lambda _: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        """``slots`` are used and stopped at the end. ``on_event`` hears what was written down."""
        self.state, self.rules = state, rules
        self._journal, self._make_task, self._score = journal, make_task, score
        self._on_event, self._on_tick = on_event, on_tick
        self._slots = slots
        self._saved_at: dict[int, float] = {}
        self._exhausted = False
        self._out_of_time = False
        self._none_ready_since = time.monotonic()

    def run(self) -> None:
        """Run until every trial has ended. Raises ``ClusterError`` where no trial finds room any more."""
        try:
            self._finish_what_was_decided()
            while True:
                self._obey_orders()
                self._fill_slots()
                if not any(slot.trial for slot in self._slots) and not self._has_more():
                    return
                assert self._may_begin() or any(slot.watched() for slot in self._slots), "trials wait for nobody"
                self._wait()
                self._on_tick()
                self._check_time()
        finally:
            for slot in self._slots:
                slot.stop()

    def _record(self, kind: str, trial: TrialRecord | int, **values: Any) -> None:
        """Write an event down, then let it have its consequences."""
        number = trial if isinstance(trial, int) else trial.number
        event: Event = {"kind": kind, "trial": number, **values, "time": time.time()}
        self._journal.append(event)
        self.state.apply(event)
        self._on_event(event)

    # -- what runs next -------------------------------------------------------------------------------------------

    def _finish_what_was_decided(self) -> None:
        """Trials that ran when the last driver died: one that was to stop has stopped, the others go on."""
        for trial in self.state.trials.values():
            if trial.phase != "running":
                continue
            if trial.decision == "stop":
                self._record("ended", trial, state="stopped", reason=_why_stopped(trial), held_until=trial.heard)
            elif trial.decision == "pause" and trial.saved_epoch == len(trial.epochs):
                self._record("waiting", trial, held_until=trial.heard)
            else:
                trial.phase = "pending"
                trial.seconds += max(trial.heard - trial.since, 0.0)  # what came after was lost with the driver
                trial.since = 0.0

    def _obey_orders(self) -> None:
        """Trials that wait hear what the scheduler wants of them."""
        while orders := [o for o in self.state.scheduler.orders() if self.state.trials[o.trial].phase == "waiting"]:
            self._obey(orders[0])

    def _obey(self, order: Order) -> None:
        trial = self.state.trials[order.trial]
        if order.stop:
            self._end(trial, "stopped", _why_stopped(trial))
        elif order.donor is None:
            self._record("ordered", trial)
        else:
            assert order.parameters is not None
            self._record("ordered", trial, donor=order.donor, parameters=dict(order.parameters))

    def _fill_slots(self) -> None:
        for slot in self._slots:
            if slot.trial or self._out_of_time:
                continue
            if not slot.watched() and not slot.ready and self._has_more():
                slot.start()
            elif slot.ready and not slot.watched() and (trial := self._next_trial()):
                self._record("started", trial, node=slot.node)
                self._saved_at[trial.number] = time.monotonic()
                slot.begin(self._make_task(trial))

    def _next_trial(self) -> TrialRecord | None:
        """One that goes on, those with another's checkpoint first; else a new one."""
        pending = [trial for trial in self.state.trials.values() if trial.phase == "pending"]
        if pending:
            return min(pending, key=lambda trial: (not trial.carried, trial.checkpoint is None, trial.number))
        number = len(self.state.trials) + 1
        if self._exhausted or number > self.rules.samples:
            return None
        parameters = self.state.searcher.suggest(number)
        if parameters is None:
            self._exhausted = True
            return None
        self._record("suggested", number, parameters=parameters)
        return self.state.trials[number]

    def _may_begin(self) -> bool:
        fresh = not self._exhausted and len(self.state.trials) < self.rules.samples
        return fresh or any(trial.phase == "pending" for trial in self.state.trials.values())

    def _has_more(self) -> bool:
        if self._out_of_time:
            return False
        fresh = not self._exhausted and len(self.state.trials) < self.rules.samples
        return fresh or any(trial.phase != "ended" for trial in self.state.trials.values())

    # -- what trials say ------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        if any(slot.ready for slot in self._slots):
            self._none_ready_since = time.monotonic()
        elif time.monotonic() - self._none_ready_since > self.rules.wait_s:
            raise ClusterError(
                f"waited {self.rules.wait_s:g} s for room for {self._slots[0].plan.describe()}; "
                "add nodes, ask for less in resources, or raise cluster.wait_s"
            )
        for slot, message in hear(self._slots, _TICK_S):
            if isinstance(message, SlotBroke):
                self._broke(slot, message)
            elif slot.trial:
                self._hear(slot, self.state.trials[slot.trial], message)

    def _hear(self, slot: Slot, trial: TrialRecord, message: Message) -> None:
        if slot.leaving:  # decided before; only the end of it counts
            slot.trial, slot.leaving = 0, False
            return
        if message.kind == "ended":
            slot.trial = 0
            self._end(trial, "finished", None)
            return
        if message.kind == "saved":
            self._saved_at[trial.number] = time.monotonic()
            if message.checkpoint is None:
                if trial.decision == "pause":  # it cannot wait without one
                    self._broke(slot, SlotBroke("the store for its checkpoint is away", lost=True))
                else:
                    slot.answer("continue")
                return
            self._record("saved", trial, epoch=message.epoch, checkpoint=message.checkpoint)
            if trial.decision == "pause":
                self._record("waiting", trial)
                self._dismiss(slot)
            else:
                slot.answer("continue")
            return
        assert message.metrics is not None
        score = self._score(trial, message.metrics)
        self._record("epoch", trial, epoch=message.epoch, metrics=message.metrics, score=score)
        if trial.decision == "stop":
            self._end(trial, "stopped", _why_stopped(trial))
            self._dismiss(slot)
        else:
            slot.answer("save" if trial.decision == "pause" or self._due(trial) else "continue")

    def _dismiss(self, slot: Slot) -> None:
        """Its trial is over; the slot is free as soon as training has returned."""
        slot.answer("stop")
        slot.leaving = True

    def _due(self, trial: TrialRecord) -> bool:
        every = self.rules.checkpoint_s
        return every is not None and time.monotonic() - self._saved_at[trial.number] >= every

    def _broke(self, slot: Slot, broke: SlotBroke) -> None:
        """Whatever happened, the slot begins afresh. A trial that was lost goes on from its checkpoint, elsewhere."""
        trial = self.state.trials.get(slot.trial) if not slot.leaving else None
        slot.stop()
        if trial is None:
            return
        if not broke.lost:
            self._end(trial, "failed", broke.reason)
        elif trial.restarts < self.rules.max_failures:
            self._record("lost", trial, reason=broke.reason)
        else:
            self._end(trial, "failed", f"{broke.reason} ({trial.restarts + 1} times)")

    def _end(self, trial: TrialRecord, state: str, reason: str | None) -> None:
        self._record("ended", trial, state=state, reason=reason)

    def _check_time(self) -> None:
        """After the deadline what runs is stopped and nothing new begins."""
        if self._out_of_time or self.rules.deadline is None or time.time() < self.rules.deadline:
            return
        self._out_of_time = True
        for slot in self._slots:
            slot.stop()
        for trial in list(self.state.trials.values()):
            if trial.phase != "ended":
                self._end(trial, "stopped", OUT_OF_TIME)


def _why_stopped(trial: TrialRecord) -> str:
    return f"not among the best after epoch {len(trial.epochs)}"
