"""What a search does beside its loop: names, times, places and errors, without a cluster."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs import tune
from ray_jobs.errors import RunExists
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.flows.search.best_training import _run_for
from ray_jobs.flows.search.folder import SearchFolder
from ray_jobs.flows.search.journal import SearchState
from ray_jobs.flows.search.preparation import earlier_trials, make_searcher
from ray_jobs.flows.search.run import Trials, _holding_storage, _write_report
from ray_jobs.flows.search.slots import Slot, SlotPlan, broke_by
from ray_jobs.flows.search.worker import _check_shared, mark_shared
from ray_jobs.search.pbt import PopulationBasedTraining
from ray_jobs.search.score import Score
from ray_jobs.search.searchers import RandomSearcher
from ray_jobs.search.settings import SearchSettings
from ray_jobs.search.space import parse_space
from ray_jobs.settings import Settings
from ray_jobs.storage import FolderStorage

SPACE, _ = parse_space({"lr0": {"uniform": [0.1, 1.0]}})


def test_addresses_and_apostrophes_reach_the_settings(tmp_path: Path) -> None:
    (tmp_path / "tune.yaml").write_text("space:\n  optimizer: AdamW\n  lr0: {uniform: [0.001, 0.01]}\n")
    for data in ("s3://bucket/prefix/data.yaml", f"{tmp_path}/the patient's/data.yaml"):
        options = tune._parse(["--data", data, "--tune", str(tmp_path / "tune.yaml"), "--run-name", "2024"])
        settings, _, _, folder = tune._settings_and_folder(options)
        assert (settings.data, folder.name) == (data, "2024")


def test_the_time_of_a_trial_survives_two_dead_drivers() -> None:
    state = SearchState(PopulationBasedTraining(1, SPACE, 6, 6), RandomSearcher(SPACE, 0))
    epoch = {"kind": "epoch", "trial": 1, "metrics": {}}
    for event in (
        {"kind": "suggested", "trial": 1, "parameters": {"lr0": 0.5}, "time": 0.0},
        {"kind": "started", "trial": 1, "time": 10.0},
        {**epoch, "epoch": 1, "score": 0.1, "time": 40.0},
        {"kind": "started", "trial": 1, "time": 1000.0},  # by the second driver, which died too
        {**epoch, "epoch": 2, "score": 0.2, "time": 1005.0},
        {"kind": "started", "trial": 1, "time": 2000.0},
        {"kind": "ended", "trial": 1, "state": "stopped", "time": 3000.0, "held_until": 2001.0},
    ):
        state.apply(event, replayed=True)
    assert state.trials[1].seconds == pytest.approx(30.0 + 5.0 + 1.0)


def test_a_population_remembers_what_its_best_score_came_from() -> None:
    state = SearchState(PopulationBasedTraining(2, SPACE, 4, 2), RandomSearcher(SPACE, 0))

    def happened(kind: str, trial: int, **values: Any) -> None:
        state.apply({"kind": kind, "trial": trial, "time": 0.0, **values})

    for trial, lr0 in ((1, 0.5), (2, 0.9)):
        happened("suggested", trial, parameters={"lr0": lr0})
        happened("epoch", trial, epoch=1, score=0.8 / trial, metrics={})
        happened("saved", trial, epoch=1, checkpoint="a")
    happened("ordered", 1, donor=2, parameters={"lr0": 0.7})
    happened("epoch", 1, epoch=2, score=0.3, metrics={})
    one, two = state.as_trials({}, time.time())
    assert (one.score, one.parameters["lr0"]) == (0.8, 0.5)
    assert state.trials[1].parameters == {"lr0": 0.7}
    happened("epoch", 2, epoch=2, score=0.9, metrics={})
    assert two.parameters == {"lr0": 0.9}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """``runs/`` with a search that tried three values of lr0 and mosaic, always with AdamW."""
    tried = {"optimizer": "AdamW", "lr0": {"uniform": [0.1, 1.0]}, "mosaic": {"uniform": [0.0, 1.0]}}
    folder = SearchFolder(tmp_path / "runs" / "first")
    folder.begin(SearchSettings(space=tried), Settings(), "f" * 64)
    events: list[dict[str, Any]] = []
    for number, lr0 in enumerate((0.2, 0.4, 0.9), 1):
        events += [
            {"kind": "suggested", "trial": number, "parameters": {"lr0": lr0, "mosaic": 0.5}, "time": 0.0},
            {"kind": "epoch", "trial": number, "epoch": 1, "metrics": {}, "score": lr0, "time": 0.0},
            {"kind": "ended", "trial": number, "state": "finished", "time": 0.0},
        ]
    folder.journal.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    folder.release()
    return folder.path.parent


def later(earlier: Path, space: dict[str, Any]) -> list[Any]:
    """What a search of another space learns, as it reaches Optuna."""
    search = SearchSettings.model_validate({"space": space, "searcher": {"name": "tpe", "earlier": ["first"]}})
    parsed, _ = parse_space(search.space)
    learned = earlier_trials(search, parsed, earlier)
    assert make_searcher(search, parsed, tuple(learned)).suggest(1)
    return learned


def test_a_search_learns_from_one_of_a_larger_space(earlier: Path) -> None:
    assert later(earlier, {"lr0": {"uniform": [0.1, 0.5]}}) == [({"lr0": 0.2}, 0.2), ({"lr0": 0.4}, 0.4)]


def test_what_an_earlier_search_did_not_vary_counts_as_tried(earlier: Path) -> None:
    learned = later(earlier, {"lr0": {"uniform": [0.5, 1.0]}, "optimizer": {"choice": ["AdamW", "SGD"]}})
    assert learned == [({"lr0": 0.9, "optimizer": "AdamW"}, 0.9)]
    assert later(earlier, {"lr0": {"uniform": [0.1, 1.0]}, "scale": {"uniform": [0.0, 0.5]}}) == []


def test_a_run_of_other_settings_is_not_taken_for_the_best(tmp_path: Path) -> None:
    settings = Settings(epochs=3, lr0=0.01, optimizer="AdamW")
    run = RunFolder(tmp_path / "S-best").claim(settings, "f" * 64)
    run.write_state(status="finished")
    run.release()
    prepared: Any = SimpleNamespace(
        folder=SimpleNamespace(path=tmp_path / "S", name="S"), report=SimpleNamespace(fingerprint="f" * 64)
    )
    named = settings.model_copy(update={"run_name": "S-best"})
    assert _run_for(prepared, named, "best", 7).name == "S-best"
    assert _run_for(prepared, named.model_copy(update={"lr0": 0.02}), "best", 7).name == "S-best-7"
    prepared.report.fingerprint = "e" * 64
    assert _run_for(prepared, named, "best", 7).name == "S-best-7"
    assert _run_for(prepared, named, "defaults", 7).name == "S-defaults"


def test_a_store_that_is_away_holds_up_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    settings = Settings.model_validate({"storage": {"url": "s3://bucket/prefix"}})
    prepared: Any = SimpleNamespace(settings=settings, folder=SimpleNamespace(path=tmp_path / "S", name="S"))
    started = time.monotonic()
    Trials(prepared, Score()).forget(*range(1, 200))
    assert time.monotonic() - started < 60.0


def test_trials_find_the_mark_where_their_checkpoints_go(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "shared" / "S")
    mark_shared(storage)
    _check_shared(FolderStorage(storage.root / "trials" / "0001"))


def test_two_searches_of_one_name_share_no_place(tmp_path: Path) -> None:
    settings = Settings.model_validate({"storage": {"url": str(tmp_path / "shared")}})

    def search(uid: str) -> Any:
        folder = SimpleNamespace(state=lambda: {"uid": uid})
        return SimpleNamespace(settings=settings, folder=folder, storage=FolderStorage(tmp_path / "shared" / "S"))

    with _holding_storage(search("one")) as lease:
        assert lease
        assert lease.lost_to is None
    with pytest.raises(RunExists, match="choose another run_name"), _holding_storage(search("two")):
        pass


def test_a_rank_that_misses_another_is_lost_and_did_not_fail() -> None:
    words = "RuntimeError: [pair.cc:534] Connection closed by peer [127.0.0.1]:36000"
    pair, single = Slot(SlotPlan(1, 2, 1, 0.0), None), Slot(SlotPlan(1, 1, 1, 0.0), None)
    assert broke_by(pair, words).lost
    assert not broke_by(single, words).lost
    assert not broke_by(pair, "epoch 1: the loss is not finite").lost


def test_a_page_that_cannot_be_drawn_fails_no_search(caplog: pytest.LogCaptureFixture) -> None:
    prepared: Any = SimpleNamespace(folder=SimpleNamespace(name="S"))
    assert _write_report(prepared, [], 1.0) == []
    assert "the report of S could not be written" in caplog.text
