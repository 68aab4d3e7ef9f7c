"""The undisturbed run that every other is compared with, and a place to say how long recoveries took."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.drive import EPOCHS, SMALL, Drive, epochs

_timings: list[str] = []


@pytest.fixture(scope="session")
def reference(xrays_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The weights' digest after every epoch of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("reference")
    with Drive(folder, "--data", xrays_mini / "data.yaml", "--run-name", "calm", *SMALL) as drive:
        drive.end()
    found = epochs(folder / "runs" / "calm")
    assert sorted(found) == list(range(1, EPOCHS + 1))
    assert len(set(found.values())) == EPOCHS  # it learned something in every epoch
    return found


@pytest.fixture
def timing() -> Callable[[str], None]:
    """Takes a line with a measured time; all of them are printed at the end."""
    return _timings.append


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Print what was measured."""
    yield
    for line in _timings:
        terminalreporter.write_line(f"measured: {line}")
