"""Everything that is checked before a search begins, and what it is made of.

In: training settings, search settings, a folder. Out: ``PreparedSearch``, or an error with all that is wrong; nothing
of the search exists yet when it is raised.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.dataset.report import DatasetReport
from ray_jobs.dataset.source import describe_data
from ray_jobs.detector.weights import resolve_weights
from ray_jobs.errors import BadInput, DataError
from ray_jobs.flows.preparation import check_data, find_data, probe_storage
from ray_jobs.flows.ray_cluster import check_batch, connect, live_nodes, prepare_environment
from ray_jobs.flows.search.folder import SearchFolder, find_search
from ray_jobs.flows.search.journal import SearchJournal, SearchState
from ray_jobs.flows.search.slots import SlotPlan, plan_slots
from ray_jobs.search.hyperband import HyperBand
from ray_jobs.search.pbt import PopulationBasedTraining
from ray_jobs.search.schedulers import Asha, NoScheduler, Scheduler
from ray_jobs.search.searchers import Earlier, GridSearcher, OptunaSearcher, RandomSearcher, Searcher
from ray_jobs.search.settings import SearchSettings, load_search_settings
from ray_jobs.search.space import Space
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.storage import Storage
from ray_jobs.tracking.addresses import TRACKING_OFF, resolve_uri

Say = Callable[[str], None]

_NOTHING_EARLIER = "warning: searcher.earlier: no trial of {} lies in this space, so nothing is learned from it"


@dataclass(frozen=True)
class PreparedSearch:
    """A search that can start. ``weights`` by model name; none: from scratch. ``earlier``: trials to learn from."""

    settings: Settings
    search: SearchSettings
    space: Space
    folder: SearchFolder
    data_yaml: Path
    report: DatasetReport
    weights: dict[str, bytes]
    storage: Storage
    plan: SlotPlan
    earlier: tuple[Earlier, ...]

    @property
    def samples(self) -> int:
        """How many trials there will be."""
        if self.search.searcher_name == "grid":
            return min(self.search.budget.samples, self.space.grid_size())
        return self.search.budget.samples


def prepare_search(
    settings: Settings, search: SearchSettings, space: Space, folder: SearchFolder, say: Say
) -> PreparedSearch:
    """Check everything a search needs and join the cluster. Raises the errors of ``ray_jobs.errors``."""
    for warning in settings.warnings():
        say(f"warning: {warning}")
    if "mosaic" in space.domains and settings.close_mosaic >= search.budget.epochs:
        say(
            f"warning: space.mosaic: has no effect: close_mosaic {settings.close_mosaic} leaves no epoch of "
            f"budget.epochs {search.budget.epochs} with a mosaic"
        )
    folder.check_free(settings)
    folder.check_same_search(search, settings)
    _check_batches(settings, search, space)
    earlier = earlier_trials(search, space, Path(settings.output_dir))
    if names := ", ".join(search.searcher.earlier):
        say(f"learning from {len(earlier)} trials of {names}" if earlier else _NOTHING_EARLIER.format(names))
    weights = _weights(settings, space)
    description = describe_data(find_data(settings), settings.storage.data_cache, say)
    data_yaml = description.yaml_path
    report = check_data(settings, description)
    if not report.index.splits.get("val"):
        raise DataError(f"{data_yaml}: has no val split, which trials are compared on")
    folder.check_free(settings, report.fingerprint)
    storage = probe_storage(settings, folder)
    if settings.tracking.uri not in TRACKING_OFF:
        resolve_uri(settings.tracking.uri, folder.path.parent)
    prepare_environment(settings.cluster)
    connect(settings)
    plan = plan_slots(settings, search, _nodes(settings))
    return PreparedSearch(settings, search, space, folder, data_yaml, report, weights, storage, plan, tuple(earlier))


def _nodes(settings: Settings) -> list[dict[str, float]]:
    """The cluster's nodes; one that is starting up is waited for."""
    deadline = time.monotonic() + settings.cluster.wait_s
    while not any(node.get("CPU", 0) for node in live_nodes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return live_nodes()


def _check_batches(settings: Settings, search: SearchSettings, space: Space) -> None:
    if isinstance(settings.batch_size, float) and "batch_size" not in {*space.domains, *space.fixed}:
        raise BadInput(f"batch_size: {settings.batch_size} is a share of GPU memory; a search needs a number of images")
    workers = search.resources.workers
    for size in space.values_of("batch_size", settings.batch_size):
        check_batch(int(size), workers, workers)


def _weights(settings: Settings, space: Space) -> dict[str, bytes]:
    """The starting weights of every model that trials may be."""
    found = {}
    for name in space.values_of("model_name", settings.model_name):
        model = Settings.model_validate(settings.as_dict() | {"model_name": name})
        path = resolve_weights(model)
        if path:
            found[model.model_name] = path.read_bytes()
    return found


def earlier_trials(search: SearchSettings, space: Space, output_dir: Path) -> list[Earlier]:
    """Trials of earlier searches that lie in this space. Raises ``BadInput`` for a search with another metric."""
    found: list[Earlier] = []
    for name in search.searcher.earlier:
        folder = find_search(name, output_dir)
        base = load_config_with_defaults(folder.settings)
        there, space_there = load_search_settings(folder.search_settings, (), base)
        if (there.metric, there.mode, there.budget.epochs) != (search.metric, search.mode, search.budget.epochs):
            raise BadInput(
                f"searcher.earlier: {name} looked for {there.mode} {there.metric} in {there.budget.epochs} epochs, "
                f"this search for {search.mode} {search.metric} in {search.budget.epochs}; their trials do not compare"
            )
        state = SearchState(NoScheduler(), RandomSearcher(space, 0))
        for event in SearchJournal(folder.journal).read():
            state.apply(event, replayed=True)
        for trial in state.trials.values():
            had = {**space_there.fixed, **trial.best_parameters}
            inside = all(key in had and domain.holds(had[key]) for key, domain in space.domains.items())
            if trial.phase == "ended" and trial.state != "failed" and trial.best is not None and inside:
                found.append(({key: had[key] for key in space.domains}, trial.best))
    return found


def make_scheduler(search: SearchSettings, space: Space, samples: int) -> Scheduler:
    """The scheduler that the settings name."""
    wanted, epochs = search.scheduler, search.budget.epochs
    if wanted.name == "asha":
        return Asha(epochs, wanted.grace_epochs, wanted.reduction_factor)
    if wanted.name == "hyperband":
        return HyperBand(samples, epochs, wanted.grace_epochs, wanted.reduction_factor)
    if wanted.name == "pbt":
        return PopulationBasedTraining(
            samples, space, epochs, wanted.interval, wanted.quantile, wanted.resample, search.searcher.seed
        )
    return NoScheduler()


def make_searcher(search: SearchSettings, space: Space, earlier: tuple[Earlier, ...] = ()) -> Searcher:
    """The searcher that the settings name."""
    wanted, name = search.searcher, search.searcher_name
    if name == "random":
        return RandomSearcher(space, wanted.seed, wanted.points)
    if name == "grid":
        return GridSearcher(space, wanted.seed, wanted.points)
    return OptunaSearcher(space, wanted.seed, name, wanted.startup, wanted.points, earlier)
