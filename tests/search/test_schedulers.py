"""Schedulers with scripted metrics: which trials stop, at which epochs, and who takes over whose weights."""

import random
from types import SimpleNamespace

import pytest

from ray_jobs.search.hyperband import HyperBand
from ray_jobs.search.pbt import PopulationBasedTraining
from ray_jobs.search.schedulers import Asha, Order
from ray_jobs.search.space import parse_space


def test_asha_stops_at_the_right_epochs() -> None:
    asha = Asha(max_epochs=9, grace=1, factor=3)
    scores = {1: 0.9, 2: 0.1, 3: 0.5, 4: 0.95, 5: 0.92}
    stopped = {}
    for trial, score in scores.items():  # one after the other, each with the same score in every epoch
        for epoch in range(1, 10):
            if asha.on_epoch(trial, epoch, score) == "stop":
                stopped[trial] = epoch
                break
    # 2 and 3 are below the upper third at epoch 1; 5 passes it there and is below it at 3, where only 1 and 4 were.
    assert stopped == {2: 1, 3: 1, 5: 3}


def test_asha_decides_as_ray_tunes_scheduler_does() -> None:
    from ray.tune.schedulers import AsyncHyperBandScheduler

    for seed in range(20):
        rng = random.Random(seed)
        ours, theirs = Asha(27, 2, 3), AsyncHyperBandScheduler("epoch", "score", "max", 27, 2, 3)
        trials = {number: SimpleNamespace(trial_id=str(number)) for number in range(1, 13)}
        for trial in trials.values():
            theirs.on_trial_add(None, trial)
        epochs, alive = dict.fromkeys(trials, 0), list(trials)
        while alive:
            number = rng.choice(alive)
            epochs[number] += 1
            score = rng.random()
            mine = ours.on_epoch(number, epochs[number], score)
            if epochs[number] == 27:
                alive.remove(number)
                continue
            other = theirs.on_trial_result(None, trials[number], {"epoch": epochs[number], "score": score})
            assert (mine == "stop") == (other == "STOP"), (seed, number, epochs[number])
            if mine == "stop":
                alive.remove(number)


def test_hyperband_halves_when_the_last_of_a_bracket_arrives() -> None:
    band = HyperBand(trials=5, max_epochs=9, grace=1, factor=3)
    assert [(bracket.rungs, bracket.members) for bracket in band.brackets] == [([1, 3], [1, 2, 3, 4, 5])]
    for trial in range(1, 6):
        band.suggested(trial, {})
    for trial in range(1, 5):
        assert band.on_epoch(trial, 1, score=trial / 10) == "pause"
        assert band.orders() == []
    band.ended(5)  # it failed: nobody waits for it
    assert {(order.trial, order.stop) for order in band.orders()} == {(4, False), (3, True), (2, True), (1, True)}
    for order in band.orders():
        band.ended(order.trial) if order.stop else band.obeyed(order)
    assert band.on_epoch(4, 2, 0.4) == "continue"
    assert band.on_epoch(4, 3, 0.4) == "pause"
    assert band.orders() == [Order(4)]
    band.obeyed(band.orders()[0])
    assert {band.on_epoch(4, epoch, 0.4) for epoch in range(4, 10)} == {"continue"}


def test_the_worst_of_a_population_takes_over_the_best() -> None:
    space, _ = parse_space({"lr0": {"loguniform": [0.001, 0.1]}, "mosaic": {"choice": [0.0, 0.5, 1.0]}})
    pbt = PopulationBasedTraining(4, space, max_epochs=8, interval=2, quantile=0.25, resample=0.0)
    for trial in range(1, 5):
        pbt.suggested(trial, {"lr0": 0.01 * trial, "mosaic": 0.5})
    assert pbt.on_epoch(1, 1, 0.9) == "continue"
    for trial, score in {1: 0.9, 2: 0.5, 3: 0.1, 4: 0.6}.items():
        assert pbt.on_epoch(trial, 2, score) == "pause"
    first, *others = pbt.orders()
    assert (first.trial, first.donor) == (3, 1)
    assert first.parameters
    assert first.parameters["lr0"] in (pytest.approx(0.008), pytest.approx(0.012))
    assert first.parameters["mosaic"] in (0.0, 1.0)
    assert others == [Order(1), Order(2), Order(4)]
    for order in pbt.orders():
        pbt.obeyed(order)
    assert pbt.orders() == []
    assert pbt.on_epoch(1, 8, 0.9) == "continue", "the last epoch ends by itself"
