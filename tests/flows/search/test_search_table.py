"""What a person sees of a search, in a terminal and in a log."""

import io

from ray_jobs.flows.search.journal import SearchState
from ray_jobs.flows.search.table import SearchTable
from ray_jobs.search.schedulers import NoScheduler
from ray_jobs.search.score import Score
from ray_jobs.search.searchers import RandomSearcher
from ray_jobs.search.space import Space


def a_search() -> SearchState:
    state = SearchState(NoScheduler(), RandomSearcher(Space({}, {}), 0))
    for number, score in ((1, 0.25), (2, -7.5)):
        state.apply({"kind": "suggested", "trial": number, "parameters": {"lr0": 0.001234567}})
        state.apply({"kind": "started", "trial": number, "time": 0.0})
        state.apply({"kind": "epoch", "trial": number, "epoch": 1, "metrics": {}, "score": score, "time": 1.0})
    state.apply({"kind": "ended", "trial": 1, "state": "finished", "reason": None, "time": 2.0})
    return state


def test_a_log_has_a_line_for_each_trial_that_ended() -> None:
    said: list[str] = []
    state = a_search()
    table = SearchTable(state, Score(), 4, 9, said.append, terminal=False)
    table.on_event({"kind": "epoch", "trial": 2})
    state.apply({"kind": "lost", "trial": 2, "reason": "its node was lost", "time": 2.0})
    table.on_event({"kind": "lost", "trial": 2, "reason": "its node was lost"})
    state.apply({"kind": "ended", "trial": 2, "state": "stopped", "reason": "out of time", "time": 3.0})
    table.on_event({"kind": "ended", "trial": 2})
    assert said == [
        "trial   2    1 epochs  val/map50_95 loss 7.500  its node was lost; goes on after epoch 0  (lr0 0.00123)",
        "trial   2    1 epochs  val/map50_95 loss 7.500  stopped: out of time  (lr0 0.00123)",
    ]
    assert table.status().startswith("2 of 4 trials ended, 0 running; best: trial 1 with 0.2500; about 0:")


def test_a_terminal_shows_running_trials_first() -> None:
    from rich.console import Console

    table = SearchTable(a_search(), Score(), 4, 9, print, terminal=False)
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(table.draw())
    text = console.export_text()
    assert "1 of 4 trials ended, 1 running; best: trial 1 with 0.2500; time left not known yet" in text
    rows = [line for line in text.splitlines() if "1/9" in line]
    assert ["running" in rows[0], "finished" in rows[1]] == [True, True]
    assert "loss 7.500" in rows[0]
