"""Runs one function over many files in threads and shows how far it is.

Comes in: a function and what to call it with. Goes out: its results in the same order.
A terminal gets a progress bar; a log file gets a line every few seconds.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 32  # items handed to a thread at once: one future each would cost as much as reading a label
_AHEAD = 4  # chunks for each thread, of a check that forgets what it has counted
_SECONDS_BETWEEN_LINES = 5.0


def map_in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int | None = None,
    title: str | None = None,
    chunk: int = _CHUNK,
    give_up: threading.Event | None = None,
) -> list[Result]:
    """``[function(item) for item in items]`` in ``threads`` threads, by default one per core.

    ``chunk`` items are handed to a thread at once: few where each takes long. With a ``title`` the progress is shown
    on stderr. An exception of ``function``, or Ctrl-C, ends the rest, and sets ``give_up`` for those that wait.
    """
    return list(each_in_threads(function, items, threads, title, chunk, give_up, ahead=len(items)))


def each_in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int | None = None,
    title: str | None = None,
    chunk: int = _CHUNK,
    give_up: threading.Event | None = None,
    ahead: int = _AHEAD,
) -> Iterator[Result]:
    """The results of ``map_in_threads``, one by one. For each thread at most ``ahead`` chunks are begun or done before
    the oldest is taken: so memory has a bound, and one slow item holds the others up."""
    threads = threads or available_cores()
    done = _finished(function, items, threads, chunk, give_up or threading.Event(), ahead * threads)
    for results in shown(done, len(items), title) if title else done:
        yield from results


def _finished(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int,
    chunk: int,
    stop: threading.Event,
    most: int,
) -> Iterator[list[Result]]:
    """The results of each chunk, in order; at most ``most`` of them wait."""

    def run(part: Sequence[Item]) -> list[Result]:
        with _setting(stop):
            return [function(item) for item in part]

    waiting: deque[Future[list[Result]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        with _setting(stop):  # before the pool waits for its threads
            for start in range(0, len(items), chunk):
                waiting.append(pool.submit(run, items[start : start + chunk]))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _setting(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` when what is inside fails."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shown(parts: Iterable[list[Result]], total: int, title: str) -> Iterator[list[Result]]:
    """The same parts, one by one, while stderr says how many of ``total`` results they have brought."""
    return _with_bar(parts, total, title) if sys.stderr.isatty() else _with_lines(parts, total, title)


def _with_bar(parts: Iterable[list[Result]], total: int, title: str) -> Iterator[list[Result]]:
    from rich.console import Console  # only where there is a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        for part in parts:
            progress.advance(task, len(part))
            yield part


def _with_lines(parts: Iterable[list[Result]], total: int, title: str) -> Iterator[list[Result]]:
    done, told = 0, time.monotonic()
    for part in parts:
        done += len(part)
        if time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            print(f"{title}: {done:,} of {total:,}", file=sys.stderr, flush=True)
        yield part
    print(f"{title}: {done:,} of {total:,}, done", file=sys.stderr, flush=True)
