"""The champion's alias on a real MLflow: it moves for good reasons, back again, and for one process at a time."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_jobs.errors import BadInput, TrackingError
from ray_jobs.tracking.client import connect
from ray_jobs.tracking.promotion import ChampionChanged, Registry, Verdict
from ray_jobs.tracking.registered_model import ModelVersion, parse_address
from ray_jobs.tracking.turns import CHANGES_TAG, TurnTaken, take_turn

from .conftest import HungServer, MlflowServer


def make_versions(uri: str, name: str, count: int) -> Registry:
    client = connect(uri)
    client.create_registered_model(name)
    run = client.create_run("0").info
    for _ in range(count):
        client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id, description="Trained on phantoms.")
    return Registry(uri, name)


def verdict(registry: Registry, version: str, champion: ModelVersion | None, promote: bool = True) -> Verdict:
    reasons = ["better: mAP50 +0.1"] if promote else ["not surely better: mAP50 -0.1", "Mass falls"]
    return Verdict(registry.version(version), champion, promote, reasons, {"map50": 0.1})


def leftovers(uri: str, name: str) -> list[str]:
    return [entry.name for entry in connect(uri).search_registered_models(filter_string=f"name LIKE '{name}.%'")]


def test_the_first_the_better_and_the_way_back(mlflow_server: MlflowServer) -> None:
    registry = make_versions(mlflow_server.url, "there-and-back", 3)
    assert registry.champion() is None
    registry.carry_out(verdict(registry, "1", None))
    registry.carry_out(verdict(registry, "2", registry.champion()))
    registry.carry_out(verdict(registry, "3", registry.champion()))
    assert registry.champion().version == "3"
    left, back = registry.roll_back("it missed effusions")
    assert (left.version, back.version) == ("3", "2")
    assert registry.roll_back()[1].version == "1"
    assert registry.champion().version == "1"
    with pytest.raises(BadInput, match="is the first champion"):
        registry.roll_back()
    changes = [(entry["action"], entry["from"], entry["to"]) for entry in registry.history()]
    assert changes == [
        ("promoted", None, "1"),
        ("promoted", "1", "2"),
        ("promoted", "2", "3"),
        ("rolled back", "3", "2"),
        ("rolled back", "2", "1"),
    ]
    assert registry.history()[3]["reason"] == "it missed effusions"
    assert registry.version("3").tags["promotion"] == "rolled back"
    assert leftovers(mlflow_server.url, "there-and-back") == []


def test_a_refused_version_says_why_and_moves_nothing(mlflow_server: MlflowServer) -> None:
    registry = make_versions(mlflow_server.url, "refused", 2)
    registry.carry_out(verdict(registry, "1", None))
    for _ in range(2):
        registry.carry_out(verdict(registry, "2", registry.champion(), promote=False))
    assert registry.champion().version == "1"
    version = registry.version("2")
    assert version.tags["promotion"] == "refused"
    assert version.tags["promotion_reason"] == "not surely better: mAP50 -0.1; Mass falls"
    assert version.tags["promotion_compared_with"] == "1"
    assert json.loads(version.tags["promotion_numbers"]) == {"map50": 0.1}
    assert version.description.startswith("Trained on phantoms.\n\n## Promotion\n\nRefused on ")
    assert version.description.count("## Promotion") == 1


def test_a_decision_about_a_former_champion_is_not_carried_out(mlflow_server: MlflowServer) -> None:
    registry = make_versions(mlflow_server.url, "stale", 3)
    registry.carry_out(verdict(registry, "1", None))
    late = verdict(registry, "3", registry.champion())
    registry.carry_out(verdict(registry, "2", registry.champion()))
    with pytest.raises(ChampionChanged, match="the champion is version 2 now, and stale version 3 was compared with"):
        registry.carry_out(late)
    assert registry.champion().version == "2"
    assert "promotion" not in registry.version("3").tags


RACE = """
import sys
from ray_jobs.tracking.promotion import ChampionChanged, Registry, Verdict
from ray_jobs.tracking.turns import TurnTaken
uri, name, version = sys.argv[1:]
registry = Registry(uri, name)
verdict = Verdict(registry.version(version), registry.champion(), True, ["better"], {})
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.carry_out(verdict)
    print("won")
except (ChampionChanged, TurnTaken) as error:
    print(type(error).__name__)
"""


def test_of_two_promotions_at_once_one_wins(mlflow_server: MlflowServer) -> None:
    """Processes that have all compared with the same champion are let go together; never two winners."""
    registry = make_versions(mlflow_server.url, "race", 4)
    registry.carry_out(verdict(registry, "1", None))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, mlflow_server.url, "race", version],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in ("2", "3", "4")
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert said.count("won") == 1, said
    assert set(said) <= {"won", "ChampionChanged", "TurnTaken"}
    assert registry.champion().version == str(said.index("won") + 2)
    assert len(registry.history()) == 2
    assert leftovers(mlflow_server.url, "race") == []


def test_the_turn_of_a_process_that_died_goes_on_and_the_dead_one_may_not_come_back(
    mlflow_server: MlflowServer,
) -> None:
    registry = make_versions(mlflow_server.url, "died", 2)
    client = connect(mlflow_server.url)
    with take_turn(client, "died", lease_s=0.5) as slow:
        assert slow.still_mine()
        with pytest.raises(TurnTaken, match="another promotion is under way"), take_turn(client, "died"):
            pass
        time.sleep(0.6)
        with take_turn(client, "died", lease_s=0.5) as second:
            assert (second.number, second.attempt) == (0, 2)
            assert not slow.still_mine()
            assert second.still_mine()
            second.count()
    assert client.get_registered_model("died").tags[CHANGES_TAG] == "1"
    assert leftovers(mlflow_server.url, "died") == []
    registry.carry_out(verdict(registry, "1", None))
    assert client.get_registered_model("died").tags[CHANGES_TAG] == "2"


def test_a_sqlite_file_serves_as_well(database: str) -> None:
    registry = make_versions(database, "alone", 1)
    registry.carry_out(verdict(registry, "1", None))
    assert registry.champion().version == "1"


def test_a_server_that_does_not_answer_is_a_tracking_error(
    hung_server: HungServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with pytest.raises(TrackingError, match="fails"):
        Registry(hung_server.url, "any").champion()


@pytest.mark.parametrize(
    "text",
    [
        "models:/../../etc/passwd@champion",
        "models:/a/b@champion",
        "models:/a@",
        "models:/a/0",
        "models:/a/1/..",
        "models:/a@champion\n",
        "models:/@champion",
        "models:/a.promotion-0-1@champion",
        "runs:/a/model",
        "models:/a@champion?x=1",
        "models:/a/٣",
        "",
    ],
)
def test_tricks_in_model_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="must be models:/NAME@ALIAS"):
        parse_address(text)


def test_addresses_are_taken_apart() -> None:
    assert str(parse_address("models:/xray-detector@champion")) == "models:/xray-detector@champion"
    assert parse_address("models:/xray detector_2/17").version == "17"


def test_a_long_history_and_long_reasons_fit_into_the_database(empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    registry = make_versions(f"sqlite:///{tmp_path / 'mlflow.db'}", "long", 2)
    long = "Schädel: AP50 falls " * 400
    for turn in range(14):
        now = registry.version(str(turn % 2 + 1))
        registry.carry_out(Verdict(now, registry.champion(), True, [long], {"map50": 0.1}))
    history = registry.history()
    assert history[-1]["to"] == "2"
    assert 3 < len(history) < 14
    model = connect(registry.uri).get_registered_model("long")
    version = registry.version("2")
    stored = [*model.tags.values(), *version.tags.values(), version.description]
    assert max(len(text) for text in stored) < 5000
    assert version.description.startswith("Trained on phantoms.\n\n## Promotion\n\nPromoted on ")
