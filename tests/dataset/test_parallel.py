"""Work in threads: the order of the results, errors, and the progress bar of a terminal."""

import io
import sys
import threading

import pytest

from ray_jobs.dataset.parallel import map_in_threads


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_results_keep_the_order() -> None:
    assert map_in_threads(lambda number: number * 2, range(1000), threads=4) == list(range(0, 2000, 2))
    assert map_in_threads(str, []) == []


def test_an_error_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda number: 1 // number, [1, 0], threads=2)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert map_in_threads(str, [1, 2, 3], title="reading") == ["1", "2", "3"]
    assert "reading" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_those_that_wait_give_up_when_one_fails() -> None:
    give_up = threading.Event()

    def work(item: int) -> None:
        if item:
            raise ValueError("broken")
        assert give_up.wait(60)

    with pytest.raises(ValueError, match="broken"):
        map_in_threads(work, [0, 1], threads=2, chunk=1, give_up=give_up)
