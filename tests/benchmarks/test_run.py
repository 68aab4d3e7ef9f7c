"""Running all comparisons: one that fails is said, and the others go on."""

import json
import os
from pathlib import Path

import pytest

GOOD = "import comparison; comparison.Comparison('good', 's', [1.0], [4.0], 0.5).save()"
BAD = "import sys; sys.exit('no such peer')"


@pytest.fixture
def _parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts, the first of which fails and the last of which needs a GPU; results go to ``tmp_path``."""
    import comparison
    import run

    results = tmp_path / "benchmarks" / "results"
    here = str(Path(comparison.__file__).parent)
    for name, code in (("bad", BAD), ("good", f"import sys; sys.path.insert(0, {here!r})\n{GOOD}"), ("fast", BAD)):
        code = code.replace(".save()", f".save(__import__('pathlib').Path({str(results)!r}))")
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "RESULTS", results)
    monkeypatch.setattr(run, "has_gpu", lambda: False)
    chosen = [run.Part("bad", (), ()), run.Part("good", (), ()), run.Part("fast", (), (), gpu=True)]
    monkeypatch.setattr(run, "PARTS", tuple(chosen))


@pytest.mark.usefixtures("_parts")
def test_a_failing_part_costs_itself_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import run

    monkeypatch.setattr("sys.argv", ["run.py"])
    assert run.main() == 1
    said = capfd.readouterr()
    assert "[1/3] bad: failed with 1" in said.out
    assert "[2/3] good: done" in said.out
    assert "[3/3] fast: this machine has no GPU" in said.out
    assert "failed: bad" in said.err
    assert "met" in said.out.rpartition("good")[2]
    assert json.loads((tmp_path / "benchmarks" / "results" / "good.json").read_text())["met"] is True


@pytest.mark.usefixtures("_parts")
def test_old_results_are_not_shown_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import run

    old = tmp_path / "benchmarks" / "results" / "old.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    os.utime(old, (0, 0))
    monkeypatch.setattr("sys.argv", ["run.py", "--only", "good"])
    assert run.main() == 0
    assert "old" not in capfd.readouterr().out


def test_every_part_has_its_script() -> None:
    import run

    for part in run.PARTS:
        assert part.gpu or (run.HERE / (part.script or f"{part.name}.py")).is_file(), part.name


def test_what_takes_long_is_left_to_the_full_run() -> None:
    import run

    long = next(part for part in run.PARTS if part.name == "ten_times")
    assert long.command(False, None) is None
    command = long.command(True, Path("data.yaml"))
    assert command
    assert command[-2:] == ["--data", "data.yaml"]
