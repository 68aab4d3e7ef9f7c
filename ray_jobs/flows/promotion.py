"""The promotion decision, from two models and a test split to the champion's alias.

In: a registered version, the files it was made from, and a checked data set. Out: ``promotion.json`` in the run's
folder, the reason in MLflow, and the alias moved or not. Challenger and champion are measured here on the very same
images, so nothing depends on what either run said of itself.

Where the tracking server is down, nothing is decided and nothing is lost: ``promotion.json`` says "waiting", and
``python -m ray_jobs.promote --run RUN`` decides later.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.source import describe_data
from ray_jobs.entry import how_to_run
from ray_jobs.errors import BadInput, DataError, ExportError, PlatformError, TrackingError, WeightsError
from ray_jobs.flows.assessment import BATCH, device_of
from ray_jobs.flows.measures import count_decision
from ray_jobs.flows.preparation import check_data, find_data
from ray_jobs.flows.retraining import tracking_uri
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.tracking.delivery import Delivery
from ray_jobs.tracking.promotion import ChampionChanged, Registry, Verdict
from ray_jobs.tracking.registered_model import ModelVersion, fetch_weights
from ray_jobs.tracking.turns import TurnTaken

if TYPE_CHECKING:
    from ray_jobs.detector.evaluation import Evaluation

Say = Callable[[str], None]

FILE = "promotion.json"
_ROUNDS = 5  # how often the champion may change while this model is being compared with it
_TURN_WAIT_S = 150.0  # longer than a turn lasts whose holder died


@dataclass(frozen=True)
class Candidate:
    """A version that may become the champion, its files on this disk, and the data set it is measured on."""

    version: ModelVersion
    weights: Path
    onnx: Path
    index: DatasetIndex


def decides(settings: Settings) -> bool:
    """Whether a run with these settings ends with a promotion decision."""
    when = settings.tracking.promotion.when
    return when == "always" or (when == "retrain" and "fine_tuned_from" in settings.tracking.tags)


def promote_run(
    settings: Settings, index: DatasetIndex, run: RunFolder, registered: dict[str, str] | None, say: Say
) -> dict[str, Any]:
    """Decide about the version that a finished run has registered; returns what ``promotion.json`` then says.

    ``registered`` has ``name`` and ``version``; None: the tracking server has not got it yet.
    """
    if not settings.tracking.registry:
        return _write(run, "none", reasons=["nothing is registered (tracking.registry)"])
    if registered is None:
        return _wait(run, "the tracking server has not got the model yet", say)
    try:
        registry = Registry(tracking_uri(settings), registered["name"], settings.tracking.promotion.champion)
        version = registry.version(registered["version"])
        candidate = Candidate(version, run.weights / "best.pt", run.weights / "best.onnx", index)
        return _write(run, **promote(settings, registry, candidate, say))
    except (TrackingError, TurnTaken) as error:
        return _wait(run, str(error), say)


def promote_finished(run: RunFolder, say: Say) -> dict[str, Any]:
    """Send what a finished run's tracking still has to send, and decide; what ``promote_run`` returns."""
    if not run.summary.is_file():
        raise BadInput(f"{run.path}: holds no finished run")
    settings = load_config_with_defaults(run.settings)
    uri = tracking_uri(settings.model_copy(update={"output_dir": str(run.path.parent)}))
    delivery = Delivery(run.path, uri)
    try:
        delivery.send_pending()
    except BadInput:
        raise
    except Exception as error:  # the server's failures come in many classes, and all of them mean: later
        raise TrackingError(f"{run.path}: the tracking server still fails: {error}; run this again later") from error
    finally:
        delivery.close()
    report = check_data(settings, describe_data(find_data(settings), settings.storage.data_cache, say))
    if report.fingerprint != run.state()["fingerprint"]:
        raise DataError(f"{settings.data}: is not the data set that the run was trained on; put the data back")
    return promote_run(settings, report.index, run, delivery.cursor.registered, say)


def is_undecided(run: RunFolder, settings: Settings) -> bool:
    """Whether a run of these settings was lost between the end of its training and its decision."""
    if not run.exists or run.state()["status"] != "finished" or (run.path / FILE).exists():
        return False
    return decides(settings) and not settings.differences(load_config_with_defaults(run.settings))


def promote(settings: Settings, registry: Registry, candidate: Candidate, say: Say) -> dict[str, Any]:
    """Measure, decide, and carry it out; returns state, version, champion, reasons and numbers.

    Raises ``TrackingError`` where the server fails, ``TurnTaken`` where other promotions do not end.
    """
    measured = _Measured(settings, candidate, say)
    for _ in range(_ROUNDS):
        champion = registry.champion()
        if champion and champion.version == candidate.version.version:
            say(f"{candidate.version} is the {registry.alias} already")
            return _outcome("promoted", candidate.version, champion, ["is the champion already"], {})
        verdict = measured.verdict(registry.uri, champion)
        try:
            _carry_out(registry, verdict)
        except ChampionChanged as change:
            say(str(change))
            continue
        state = "promoted" if verdict.promote else "refused"
        _say_verdict(verdict, registry.alias, say)
        return _outcome(state, candidate.version, champion, list(verdict.reasons), verdict.numbers)
    raise TurnTaken(f"{registry.name}: the {registry.alias} changed {_ROUNDS} times meanwhile; try again")


def _carry_out(registry: Registry, verdict: Verdict) -> None:
    deadline = time.monotonic() + _TURN_WAIT_S
    while True:
        try:
            return registry.carry_out(verdict)
        except TurnTaken:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


class _Measured:
    """A candidate with its own figures, measured once, and those of each champion it meets."""

    def __init__(self, settings: Settings, candidate: Candidate, say: Say) -> None:
        from ray_jobs.detector.process import quiet_ultralytics

        quiet_ultralytics()
        self._settings, self._candidate, self._say = settings, candidate, say
        index = candidate.index
        self._split = "test" if index.splits.get("test") else "val"
        self._samples = index.splits[self._split]
        say(f"promotion: measuring {candidate.version} on {len(self._samples)} {self._split} images")
        self._own, self._onnx_problem = self._measure_candidate()

    def verdict(self, uri: str, champion: ModelVersion | None) -> Verdict:
        """The policy's decision against this champion."""
        from ray_jobs.detector.promotion import BetterOnTheSameImages, Evidence

        comparison, problem = None, None
        if champion:
            comparison, problem = self._compare(uri, champion)
        evidence = Evidence(self._own.as_dict(), self._onnx_problem, comparison, problem)
        decision = BetterOnTheSameImages(self._settings.tracking.promotion).decide(evidence)
        numbers = {**decision.numbers, "split": self._split, "fingerprint": self._candidate.index.fingerprint}
        return Verdict(self._candidate.version, champion, decision.promote, decision.reasons, numbers)

    def _measure_candidate(self) -> "tuple[Evaluation, str | None]":
        from ray_jobs.detector.evaluation import onnx_forward
        from ray_jobs.detector.parity import check_parity

        names, size, forward, evaluation = self._measure(self._candidate.weights)
        if names != self._candidate.index.names:
            raise PlatformError(
                f"{self._candidate.version}: finds {', '.join(names)}, and the data set has "
                f"{', '.join(self._candidate.index.names)}; name the data set it was trained for"
            )
        try:
            exported = onnx_forward(self._candidate.onnx)
            check_parity(forward, exported, self._samples, names, size, pt_evaluation=evaluation)
        except ExportError as error:
            return evaluation, str(error)
        return evaluation, None

    def _compare(self, uri: str, champion: ModelVersion) -> tuple[Any, str | None]:
        from ray_jobs.detector.bootstrap import compare, patients_of
        from ray_jobs.detector.evaluation import model_facts

        try:
            weights = fetch_weights(uri, champion, Path(self._settings.weights_dir) / "registered")
            names, _ = model_facts(weights)
        except WeightsError as error:
            return None, f"the champion cannot be measured: {error}"
        if names != self._candidate.index.names:
            own = ", ".join(self._candidate.index.names)
            return None, f"{champion} finds other classes ({', '.join(names)}) than this model ({own})"
        self._say(f"promotion: measuring {champion}, the champion, on the same images")
        other = self._measure(weights)[3]
        images = [sample.image.name for sample in self._samples]
        patients = patients_of(images, self._settings.data_check.patient_id_pattern)
        return compare(self._own.statistics, other.statistics, patients, seed=self._settings.seed), None

    def _measure(self, weights: Path) -> "tuple[tuple[str, ...], int, Any, Evaluation]":
        from ray_jobs.detector.evaluation import detect, evaluate, model_facts, torch_forward

        names, size = model_facts(weights)
        forward = torch_forward(weights, device_of(self._settings))
        return names, size, forward, evaluate(detect(forward, self._samples, size, BATCH), self._samples, names)


def _say_verdict(verdict: Verdict, alias: str, say: Say) -> None:
    if verdict.promote:
        before = f", before it {verdict.champion}" if verdict.champion else ""
        say(f"promotion: {verdict.version} is the {alias} now{before}")
    else:
        say(f"promotion: {verdict.version} stays challenger; the {alias} is {verdict.champion or 'nobody'}")
    for reason in verdict.reasons:
        say(f"    {reason}")


def _outcome(
    state: str, version: ModelVersion, champion: ModelVersion | None, reasons: list[str], numbers: dict[str, Any]
) -> dict[str, Any]:
    compared = champion.version if champion else None
    return {
        "state": state,
        "name": version.name,
        "version": version.version,
        "champion_before": compared,
        "reasons": reasons,
        "numbers": numbers,
    }


def _wait(run: RunFolder, reason: str, say: Say) -> dict[str, Any]:
    say(f"promotion waits: {reason}")
    say(f"    decide it later: {how_to_run('promote')} --run {run.path}")
    return _write(run, "waiting", reasons=[reason])


def _write(run: RunFolder, state: str, **entries: Any) -> dict[str, Any]:
    outcome = {"state": state, **entries}
    partial = run.path / f".{FILE}.partial"
    partial.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    partial.replace(run.path / FILE)
    count_decision(run.name, state)
    return outcome
