"""Work in threads: the order of the results, errors, and the progress bar of a terminal."""

import io
import sys
import threading

import pytest

from ray_jobs.dataset.parallel import each_in_threads, map_in_threads


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


def test_one_slow_item_holds_nobody_up_where_all_results_are_wanted() -> None:
    last = threading.Event()

    def work(item: int) -> None:
        assert last.wait(60) if item == 0 else True
        if item == 99:
            last.set()

    map_in_threads(work, range(100), threads=2, chunk=1)


def test_few_results_wait_for_who_takes_them_one_by_one() -> None:
    begun: list[int] = []
    results = each_in_threads(begun.append, range(100), threads=2, chunk=1, ahead=3)
    next(results)
    assert len(begun) <= 1 + 2 * 3
    assert len(list(results)) == 99
    assert sorted(begun) == list(range(100))
