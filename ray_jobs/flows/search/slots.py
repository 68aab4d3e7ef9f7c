"""Where trials run: slots of one or more processes on the cluster, kept for the whole search.

In: what a trial needs. Out: slots that are told what to do and whose messages are awaited together. A slot whose
process or node is lost is started again where there is room.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.errors import BadInput, StoreOutage
from ray_jobs.flows.ray_cluster import WorkerPlan, rank_timeout_s, workers_that_fit
from ray_jobs.flows.search.worker import Answer, Message, TrialTask, TrialWorker
from ray_jobs.search.settings import SearchSettings
from ray_jobs.settings import Settings


@dataclass(frozen=True)
class SlotPlan:
    """``count`` trials at a time, each of ``workers`` processes with ``cpus`` cores and ``gpus`` GPUs.

    ``rank_timeout_s``: how long the processes of a trial wait for each other. ``hang_timeout_s``: how long one may not
    answer before it is lost; 0: for ever.
    """

    count: int
    workers: int
    cpus: int
    gpus: float
    rank_timeout_s: float = 1800.0
    hang_timeout_s: float = 0.0

    def describe(self) -> str:
        """``2 trials at a time, each 1 worker with 1 CPU``."""
        each = WorkerPlan(self.workers, self.workers, self.cpus, self.gpus).describe().removesuffix(" each")
        return f"{self.count} trial{'s' if self.count > 1 else ''} at a time, each {each}"


def plan_slots(settings: Settings, search: SearchSettings, nodes: list[dict[str, float]]) -> SlotPlan:
    """How many trials run at a time, on nodes with these resources (``CPU``, ``GPU``).

    Raises ``BadInput`` where no node has what one worker of a trial needs, or all together not what a trial needs.
    """
    wanted = search.resources
    most_gpus = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    most_cpus = int(max((node.get("CPU", 0.0) for node in nodes), default=0.0))
    use_gpus = isinstance(settings.device, list) or (most_gpus > 0 and settings.device != "cpu")
    gpus = wanted.gpus if wanted.gpus is not None else float(use_gpus)
    problems = []
    if gpus > most_gpus:
        problems.append(f"resources.gpus: {gpus:g} per worker, but no node has more than {most_gpus:g}")
    if gpus > 1 and gpus != int(gpus):
        problems.append(f"resources.gpus: {gpus:g} must be a whole number or below 1")
    if wanted.cpus is not None and wanted.cpus > most_cpus:
        problems.append(f"resources.cpus: {wanted.cpus} per worker, but no node has more than {most_cpus}")
    if problems:
        raise BadInput(problems)

    def room(cpus: int) -> int:
        return workers_that_fit(nodes, WorkerPlan(1, 1, cpus, gpus)) // wanted.workers

    if not room(wanted.cpus or 1):
        raise BadInput(
            f"resources.workers: {wanted.workers} with {wanted.cpus or 1} CPU(s) and {gpus:g} GPU(s) each find no room "
            f"in the cluster, not even for one trial; it has {sum(node.get('CPU', 0) for node in nodes):g} CPUs and "
            f"{sum(node.get('GPU', 0) for node in nodes):g} GPUs"
        )
    count = min(search.max_concurrent or search.budget.samples, room(wanted.cpus or 1))
    # The most cores that each worker can have with as many trials at a time; all of a node's would starve its driver.
    cpus = wanted.cpus or next(n for n in range(most_cpus, 0, -1) if room(n) >= count)
    return SlotPlan(count, wanted.workers, cpus, gpus, rank_timeout_s(settings), settings.cluster.hang_timeout_s)


@dataclass
class Slot:
    """Processes that run one trial at a time. ``trial`` is the number of the one that it runs, 0 for none."""

    plan: SlotPlan
    objective: Any  # a reference to the Objective in Ray's object store
    trial: int = 0
    leaving: bool = False  # its trial is over, and training has not returned yet
    ready: bool = False
    node: str = ""
    _actors: list[Any] = field(default_factory=list)
    _group: Any = None
    _leader: Any = None  # rank 0's next message
    _others: list[Any] = field(default_factory=list)  # what else is awaited: other ranks, or the processes' start
    _steps: Iterator[list[Any]] | None = None
    _pings: list[Any] = field(default_factory=list)
    _pinged: float = 0.0

    def start(self) -> None:
        """Ask Ray for the processes; they come when there is room."""
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        plan = self.plan
        strategies: list[Any] = [None] * plan.workers
        if plan.workers > 1:
            bundle = {"CPU": plan.cpus, **({"GPU": plan.gpus} if plan.gpus else {})}
            self._group = placement_group([bundle] * plan.workers, strategy="PACK")
            strategies = [PlacementGroupSchedulingStrategy(self._group, index) for index in range(plan.workers)]
        make = ray.remote(concurrency_groups={"ping": 1})(TrialWorker)  # a thread that answers beside a trial
        self._actors = [
            make.options(num_cpus=plan.cpus, num_gpus=plan.gpus, scheduling_strategy=one).remote(
                self.objective, plan.cpus, plan.gpus
            )
            for one in strategies
        ]
        self._steps = self._meet()
        self._others = next(self._steps)

    def _meet(self) -> Iterator[list[Any]]:
        """What has to be awaited until the slot can run trials, step by step."""
        import ray

        first = [actor.where.remote() for actor in self._actors]
        yield list(first)
        places = ray.get(first)
        self.node = places[0][0]
        if len(self._actors) > 1:
            seen: Counter[str] = Counter()
            joins = []
            for rank, (actor, (node, _)) in enumerate(zip(self._actors, places, strict=True)):
                who = rank, seen[node], len(self._actors)
                joins.append(actor.join.remote(places[0][1], *who, self.plan.rank_timeout_s))
                seen[node] += 1
            yield list(joins)
            ray.get(joins)

    def begin(self, task: TrialTask) -> None:
        """Run a trial; its messages come from ``receive``."""
        self.trial = task.number
        self._leader = self._actors[0].begin.remote(task)
        self._others = [other.follow.remote(task) for other in self._actors[1:]]

    def answer(self, word: Answer) -> None:
        """Answer the last message."""
        self._leader = self._actors[0].answer.remote(word)

    def stop(self) -> None:
        """End the processes at once."""
        import ray
        from ray.util.placement_group import remove_placement_group

        for actor in self._actors:
            ray.kill(actor)
        if self._group is not None:
            remove_placement_group(self._group)
        self._actors, self._group, self._leader, self._others, self._pings = [], None, None, [], []
        self.ready, self.leaving, self.trial = False, False, 0

    def stands_still(self) -> bool:
        """Whether a process that was started has not answered for ``hang_timeout_s``. Asks them all now and then."""
        import ray

        limit, now = self.plan.hang_timeout_s, time.monotonic()
        if not limit or not self.ready:
            return False
        if self._pings and len(ray.wait(self._pings, num_returns=len(self._pings), timeout=0)[0]) < len(self._pings):
            return now - self._pinged > limit
        if not self._pings or now - self._pinged > limit / 4:
            self._pings = [actor.ping.options(concurrency_group="ping").remote() for actor in self._actors]
            self._pinged = now
        return False

    def watched(self) -> list[Any]:
        """What is awaited of this slot."""
        return self._others if self._leader is None else [self._leader, *self._others]

    def receive(self, done: Any) -> Message | None:
        """The message in ``done``; None where it was something else that was awaited. Raises Ray's errors."""
        import ray

        if done is self._leader:
            self._leader = None
            message: Message = ray.get(done)
            return message
        self._others.remove(done)
        ray.get(done)
        if not self.ready and not self._others:
            assert self._steps is not None
            self._others = next(self._steps, [])
            self.ready = not self._others
        return None


@dataclass(frozen=True)
class SlotBroke:
    """A slot's process failed (another try would end in the same way) or was ``lost`` with its process or node."""

    reason: str
    lost: bool


def hear(slots: list[Slot], timeout_s: float) -> Iterator[tuple[Slot, Message | SlotBroke]]:
    """What slots that run trials have to say, waiting up to ``timeout_s`` for the first of it."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    watched = {ref: slot for slot in slots for ref in slot.watched()}
    done = ray.wait(list(watched), num_returns=1, timeout=timeout_s)[0] if watched else []
    for ref in done:
        slot = watched[ref]
        try:
            message = slot.receive(ref)
        except RayTaskError as error:
            cause = getattr(error, "cause", error)
            yield slot, broke_by(slot, str(cause), lost=isinstance(cause, StoreOutage))
        except RayError as error:
            yield slot, SlotBroke(_cause_of_loss(error), lost=True)
        else:
            if message and message.error:
                yield slot, broke_by(slot, message.error, message.lost)
            elif message:
                yield slot, message
    for slot in slots:
        if slot.stands_still():
            yield slot, SlotBroke("its process did not answer for longer than cluster.hang_timeout_s", lost=True)


def broke_by(slot: Slot, reason: str, lost: bool = False) -> SlotBroke:
    """What an error that a process told of means. A rank may miss one that died before Ray says that it did."""
    if slot.plan.workers > 1 and not lost:
        from ray_jobs.flows.controller_lines import is_collateral

        if is_collateral(reason):
            return SlotBroke("lost its connection to another rank", lost=True)
    return SlotBroke(reason, lost)


def _cause_of_loss(error: BaseException) -> str:
    """What Ray says about a process that died, in a few words."""
    from ray.exceptions import OutOfMemoryError

    if isinstance(error, OutOfMemoryError):
        return "its process was killed for memory"
    return "its node was lost" if "its node has died" in str(error) else "its process died"
