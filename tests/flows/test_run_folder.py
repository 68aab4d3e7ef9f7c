"""A run's name belongs to one run: continued when unfinished, refused otherwise, never overwritten."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_jobs.errors import RunExists, StorageError
from ray_jobs.flows.run_folder import RunFolder, find_run
from ray_jobs.settings import Settings, load_config_with_defaults

FINGERPRINT = "f" * 64


@pytest.fixture(autouse=True)
def _release_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders that a test leaves claimed are released at its end, as they are when a process ends."""
    claimed: list[RunFolder] = []
    take = RunFolder.claim
    monkeypatch.setattr(RunFolder, "claim", lambda self, *args: claimed.append(self) or take(self, *args))
    yield
    for run in claimed:
        run.release()


def claim(path: Path, settings: Settings | None = None, fingerprint: str = FINGERPRINT) -> RunFolder:
    return RunFolder(path).claim(settings or Settings(), fingerprint)


def test_a_new_run_gets_its_folder_and_its_settings(tmp_path: Path) -> None:
    run = claim(tmp_path / "runs" / "a")
    assert run.state()["status"] == "running"
    assert load_config_with_defaults(run.settings) == Settings()


def test_an_unfinished_run_is_continued(tmp_path: Path) -> None:
    first = claim(tmp_path / "a")
    first.write_state(status="stopped")
    first.release()
    assert claim(tmp_path / "a").state()["status"] == "running"


def test_a_finished_run_is_refused(tmp_path: Path) -> None:
    run = claim(tmp_path / "a")
    run.write_state(status="finished")
    run.release()
    with pytest.raises(RunExists, match="this run is finished; choose another run_name"):
        claim(tmp_path / "a")


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    claim(tmp_path / "a").release()
    with pytest.raises(RunExists, match=r"epochs: 3, 100"):
        claim(tmp_path / "a", load_config_with_defaults(None, ["epochs=3"]))


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    claim(tmp_path / "a").release()
    with pytest.raises(RunExists, match="fingerprint ffffffffffff, not 000000000000"):
        claim(tmp_path / "a", fingerprint="0" * 64)


def test_a_running_run_is_refused(tmp_path: Path) -> None:
    first = claim(tmp_path / "a")
    with pytest.raises(RunExists, match="is running now"):
        claim(tmp_path / "a")
    first.release()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    with pytest.raises(RunExists, match="is not empty and holds no run"):
        claim(tmp_path / "a")
    assert (tmp_path / "a" / "thesis.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written to"):
        claim(tmp_path / "file" / "a")


def test_runs_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    claim(tmp_path / "a").release()
    assert find_run("a", tmp_path).path == find_run(str(tmp_path / "a"), Path("elsewhere")).path == tmp_path / "a"
    with pytest.raises(RunExists, match="--resume b: no such run"):
        find_run("b", tmp_path)


def test_what_auto_became_is_written_down_and_is_no_other_run(tmp_path: Path) -> None:
    wanted = Settings(epochs=2)
    run = RunFolder(tmp_path / "run").claim(wanted, "a" * 64)
    run.record_precision(wanted, "bf16")
    assert load_config_with_defaults(run.settings).precision == "bf16"
    run.check_free(wanted)  # the same command again
    with pytest.raises(RunExists, match="precision: fp32, bf16"):
        run.check_free(Settings(epochs=2, precision="fp32"))
    run.release()
