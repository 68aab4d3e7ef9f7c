"""One batch of every picture size and batch size before a search begins: what would fail everywhere fails in seconds.

In: the search's slots. Out: nothing, or ``BadInput`` with what cannot be trained. The slots stay warm for the trials.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray_jobs.errors import BadInput, ClusterError
from ray_jobs.flows.search.preparation import PreparedSearch
from ray_jobs.flows.search.slots import Slot, SlotBroke, hear
from ray_jobs.flows.search.worker import TrialTask
from ray_jobs.search.settings import trial_settings
from ray_jobs.search.space import Value

# What decides whether a batch can be trained at all.
_DECISIVE = ("model_name", "img_size", "batch_size")
_TRIES = 3  # a process that is lost each time is killed for what it does


def preflight_tasks(prepared: PreparedSearch) -> list[TrialTask]:
    """A task of one batch for each combination of model, picture size and batch size, the largest first."""
    combinations: list[dict[str, Value]] = [{}]
    for name in _DECISIVE:
        values = prepared.space.values_of(name, getattr(prepared.settings, name))
        combinations = [{**known, name: value} for known in combinations for value in values]
    others = {name: domain.bounds()[0] for name, domain in prepared.space.domains.items() if name not in _DECISIVE}
    tasks: list[TrialTask] = []
    for one in sorted(combinations, key=_size, reverse=True):
        settings = trial_settings(prepared.settings, prepared.search, {**others, **prepared.space.fixed, **one})
        one_epoch = settings.model_copy(update={"epochs": 1})
        tasks.append(TrialTask(len(tasks) + 1, one_epoch, prepared.storage, images=int(settings.batch_size)))
    return tasks


def preflight(slots: list[Slot], tasks: Sequence[TrialTask], wait_s: float) -> None:
    """Run every task. Raises ``BadInput`` for those that fail, ``ClusterError`` where there is no room."""
    waiting, problems, trouble = list(tasks), [], ""
    running: dict[int, TrialTask] = {}
    losses: Counter[int] = Counter()
    deadline = time.monotonic() + wait_s
    for slot in slots:
        slot.start()
    while waiting or running:
        for slot in slots:
            if waiting and slot.ready and not slot.watched():
                task = waiting.pop(0)
                running[task.number] = task
                slot.begin(task)
        for slot, message in hear(slots, 0.5):
            if isinstance(message, SlotBroke):
                trouble = f" ({message.reason})"
                lost = running.pop(slot.trial, None)  # none where the process broke before it had a task
                if lost:
                    losses[lost.number] += 1
                    if message.lost and losses[lost.number] < _TRIES:
                        waiting.insert(0, lost)
                    else:
                        problems.append(f"{_described(lost)}: {message.reason}")
                slot.stop()
                slot.start()
            elif message.kind == "ended":
                del running[slot.trial]
                slot.trial = 0
            else:
                slot.answer("stop")
        if running or any(slot.ready for slot in slots):
            deadline = time.monotonic() + wait_s
        elif time.monotonic() > deadline:
            plan = slots[0].plan.describe()
            raise ClusterError(f"waited {wait_s:g} s for room for {plan}{trouble}; ask for less in resources")
    if problems:
        raise BadInput(["one batch was tried before the search; it cannot be trained:", *problems])


def _size(values: dict[str, Value]) -> float:
    return float(values["img_size"]) ** 2 * float(values["batch_size"])


def _described(task: TrialTask) -> str:
    values: dict[str, Any] = {name: getattr(task.settings, name) for name in _DECISIVE}
    return ", ".join(f"{name} {value}" for name, value in values.items())
