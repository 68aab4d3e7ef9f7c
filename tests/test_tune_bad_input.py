"""Whatever is wrong with the input of a search is said in one clear message, exit code 2, and nothing is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs import tune
from ray_jobs.entry import run_job
from ray_jobs.errors import BadInput, RunExists
from ray_jobs.flows.search.folder import SearchFolder
from ray_jobs.flows.search.slots import plan_slots
from ray_jobs.search.settings import SearchSettings, load_search_settings
from ray_jobs.settings import Settings

SPACE = {"optimizer": "AdamW", "lr0": {"loguniform": [1e-4, 1e-2]}}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], xrays_mini: Path) -> Run:
    """Run the job as its users do; its exit code and what it said on the way out. No search may be left behind."""

    def call(*arguments: str, **search: Any) -> tuple[int, str]:
        written = tmp_path / "tune.yaml"
        written.write_text(yaml.safe_dump({"space": SPACE, **search}, sort_keys=False))
        always = ["--data", str(xrays_mini / "data.yaml"), "device=cpu", "pretrained=false", "tracking.uri=none"]
        here = [] if "--resume" in arguments else ["--run-name", "bad"]
        with pytest.raises(SystemExit) as left:
            run_job(tune.main, [*always[2 * ("--resume" in arguments) :], *here, "--tune", str(written), *arguments])
        said = capfd.readouterr().err
        assert "Traceback" not in said
        assert not (tmp_path / "runs" / "bad").exists(), "a half-made search is left behind"
        assert isinstance(left.value.code, int)
        return left.value.code, said

    return lambda *arguments, **search: call(*arguments, f"output_dir={tmp_path / 'runs'}", **search)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"space": {}}, "tune.yaml:1: space: is empty: name at least one parameter"),
        ({"space": {"optimizer": "SGD"}}, "space: is empty"),
        ({"space": {"lr": {"uniform": [0, 1]}}}, "tune.yaml:2: space.lr: unknown parameter; did you mean lrf?"),
        ({"space": {"learning_rate": {"uniform": [0, 1]}}}, "unknown parameter; config/config.yaml names those"),
        ({"space": {"output_dir": "x"}}, "space.output_dir: cannot be searched"),
        (
            {"space": {**SPACE, "mosaic": {"uniform": [0.9, 0.1]}}},
            "space.mosaic: the range is upside down: [0.9, 0.1]; write [0.1, 0.9]",
        ),
        ({"space": {**SPACE, "mosaic": {"uniform": [0.5, 2]}}}, "space.mosaic: must be at most 1.0, got 2"),
        ({"space": {**SPACE, "img_size": {"choice": [100]}}}, "space.img_size: must be a multiple of 32, got 100"),
        ({"space": {**SPACE, "box": {"uniform": [0.0, 9.0]}}}, "space.box: must be above 0"),
        ({"space": {**SPACE, "batch_size": {"uniform": [0.1, 0.9]}}}, "space.batch_size: must be whole numbers"),
        ({"space": {"lr0": {"loguniform": [1e-4, 1e-2]}}}, "space.lr0: has no effect with optimizer: auto"),
        (
            {"scheduler": {"grace_epochs": 9}, "budget": {"epochs": 5}},
            "scheduler.grace_epochs: 9 is above budget.epochs 5: no trial could ever be stopped",
        ),
        ({"scheduler": {"name": "pbt", "interval": 5}, "budget": {"epochs": 5}}, "there would be one generation"),
        (
            {"scheduler": {"name": "pbt"}, "space": {**SPACE, "batch_size": {"choice": [8, 16]}}},
            "space.batch_size: a checkpoint cannot be carried over to another",
        ),
        ({"metric": "val/map5"}, "metric: 'val/map5' is never reported; there are val/map50_95"),
        ({"searcher": {"name": "grid"}}, "space.lr0: cannot be enumerated by searcher grid"),
        ({"searcher": {"points": [{"lr0": 1.0}]}}, "point 1: lr0: 1.0 lies outside the space"),
        ({"searcher": {"earlier": ["nowhere"]}}, "nowhere: no such search in"),
        ({"budget": {"samples": 0}}, "budget.samples: must be at least 1, got 0"),
        ({"resources": {"workers": 3}}, "batch_size: 16 cannot be shared evenly by 3 workers; use 15 or 18"),
        ({"scheduller": {}}, "scheduller: unknown key; did you mean scheduler?"),
    ],
)
def test_wrong_settings_are_refused_with_place_and_remedy(run: Run, search: dict[str, Any], words: str) -> None:
    code, said = run(**search)
    assert code == 2
    assert words in said


def test_overrides_of_the_search_are_checked_too(run: Run) -> None:
    code, said = run("tune.budget.epochs=x")
    assert code == 2
    assert "command line: tune.budget.epochs: must be a whole number, got 'x'" in said


def test_what_to_try_must_be_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run_job(tune.main, ["device=cpu"])
    assert left.value.code == 2
    assert "give --tune" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"gpus": 8.0}, "resources.gpus: 8 per worker, but no node has more than 2"),
        ({"gpus": 1.5}, "must be a whole number or below 1"),
        ({"cpus": 64}, "resources.cpus: 64 per worker, but no node has more than 8"),
        ({"workers": 40, "cpus": 1, "gpus": 0.0}, "find no room in the cluster, not even for one trial"),
    ],
)
def test_more_than_a_node_has_is_refused(resources: dict[str, Any], words: str) -> None:
    search = SearchSettings.model_validate({"space": SPACE, "resources": resources})
    with pytest.raises(BadInput) as error:
        plan_slots(Settings(), search, [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}])
    assert words in str(error.value)
    assert error.value.exit_code == 2


def test_slots_share_gpus_and_cores() -> None:
    nodes = [{"CPU": 8.0, "GPU": 2.0}]
    halves = SearchSettings.model_validate({"space": SPACE, "resources": {"gpus": 0.5}})
    plan = plan_slots(Settings(), halves, nodes)
    assert (plan.count, plan.cpus, plan.gpus) == (4, 2, 0.5)
    pairs = SearchSettings.model_validate({"space": SPACE, "resources": {"workers": 2}, "max_concurrent": 3})
    plan = plan_slots(Settings(), pairs, nodes)
    assert (plan.count, plan.workers, plan.cpus, plan.gpus) == (1, 2, 4, 1.0)
    plan = plan_slots(Settings(device="cpu"), SearchSettings(space=SPACE, max_concurrent=2), nodes)
    assert (plan.count, plan.cpus, plan.gpus) == (2, 4, 0.0)


@pytest.fixture
def unfinished(tmp_path: Path) -> SearchFolder:
    """A search that was begun, and whose driver is gone."""
    folder = SearchFolder(tmp_path / "runs" / "begun")
    settings = Settings(device="cpu", pretrained=False, output_dir=str(tmp_path / "runs"))
    folder.begin(SearchSettings(space=SPACE), settings, "f" * 64)
    folder.journal.write_text(json.dumps({"kind": "suggested", "trial": 1, "parameters": {"lr0": 1e-3}}) + "\n")
    folder.release()
    return folder


@pytest.mark.usefixtures("unfinished")
def test_a_search_is_not_gone_on_with_in_another_space(run: Run) -> None:
    code, said = run("--resume", "begun", space={**SPACE, "lr0": {"loguniform": [1e-5, 1e-2]}})
    assert code == 2
    assert "holds a search with another space or rules" in said
    assert "    space.lr0: {'loguniform': [1e-05, 0.01]}, {'loguniform': [0.0001, 0.01]}" in said
    assert "space.optimizer" not in said, "only what differs"
    code, said = run("--resume", "begun", space={**SPACE, "mosaic": {"choice": [0.0, 1.0]}})
    assert "    space.mosaic: {'choice': [0.0, 1.0]}, not there" in said
    code, said = run("--resume", "begun", "epochs=7")
    assert code == 2
    assert "epochs: 7, 100" in said
    code, said = run("--resume", "nowhere")
    assert code == 2
    assert "nowhere: no such search" in said


def test_two_drivers_never_run_one_search(unfinished: SearchFolder) -> None:
    search, settings = SearchSettings(space=SPACE), Settings(device="cpu", pretrained=False)
    first = SearchFolder(unfinished.path)
    first.begin(search, settings, "f" * 64)
    with pytest.raises(RunExists, match="running now"):
        SearchFolder(unfinished.path).begin(search, settings, "f" * 64)
    first.release()
    second = SearchFolder(unfinished.path)
    second.begin(search, settings, "f" * 64)
    second.release()


def test_more_of_the_same_is_no_other_search(unfinished: SearchFolder) -> None:
    more = SearchSettings.model_validate({"space": SPACE, "budget": {"samples": 40}, "max_concurrent": 3})
    unfinished.check_same_search(more, Settings())
    planned = more.model_copy(update={"scheduler": more.scheduler.model_copy(update={"name": "hyperband"})})
    with pytest.raises(RunExists, match="scheduler"):
        unfinished.check_same_search(planned, Settings())


def test_the_default_search_is_valid_and_safe_for_x_rays() -> None:
    path = Path(tune.__file__).parent.parent / "config" / "tune.yaml"
    search, space = load_search_settings(path, (), Settings())
    assert not {"fliplr", "flipud", "hsv_h", "hsv_s", "bgr"} & {*space.domains, *space.fixed}
    assert search == SearchSettings(space=search.space), "the file's values are the defaults"


def test_a_data_set_in_a_bucket_keeps_its_address() -> None:
    shipped = Path(__file__).resolve().parent.parent / "config" / "tune.yaml"
    options = tune._parse(["--data", "s3://xrays/chest/data.yaml", "--tune", str(shipped)])
    assert tune._settings_and_folder(options)[0].data == "s3://xrays/chest/data.yaml"
