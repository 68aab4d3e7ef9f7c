"""The search on a real Ray cluster of two nodes, with trials that train nothing: who runs, who stops, who goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOY = Path(__file__).with_name("toy_search.py")
TWO_NODES = """
import ray.cluster_utils, sys
cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
node = cluster.add_node(num_cpus=2, node_ip_address="127.0.0.2")
cluster.wait_for_nodes()
print("READY", cluster.address, flush=True)
for line in sys.stdin:
    if line == "kill\\n":
        cluster.remove_node(node, allow_graceful=False)
        print("KILLED", flush=True)
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], subprocess.Popen[str]]]:
    """Two nodes of two CPUs; the environment of those who join, and the process that can kill the second node."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    # A node that vanishes is noticed after 3 s here, not after Ray's half a minute.
    quick = {"RAY_health_check_failure_threshold": "3", "RAY_health_check_period_ms": "1000"}
    environment = {**clean, **token, **quick, "RAY_health_check_initial_delay_ms": "0", "CUDA_VISIBLE_DEVICES": ""}
    errors = (tmp_path_factory.mktemp("cluster") / "errors").open("w+")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
    process = subprocess.Popen([sys.executable, "-c", TWO_NODES], env=environment, **pipes)
    assert process.stdin
    assert process.stdout
    address = next((line.split()[1] for line in process.stdout if line.startswith("READY")), None)
    assert address, Path(errors.name).read_text()
    yield {**environment, "RAY_ADDRESS": address}, process
    process.stdin.close()
    process.wait(60)
    process.stdout.close()
    errors.close()


Toy = tuple[dict[str, str], subprocess.Popen[str]]


def start(cluster: Toy, folder: Path, wanted: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, str(TOY), str(folder), json.dumps(wanted)]
    return subprocess.Popen(command, env=cluster[0], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    result: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith('{"trials"')))
    return result


def lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may be written to at this moment."""
    return [json.loads(line) for line in file.read_text().splitlines() if line[-1:] == "}"] if file.exists() else []


def wait_for(folder: Path, count: int, kind: str) -> list[dict[str, Any]]:
    """Until the journal holds so many events of a kind."""
    for _ in range(1200):
        found = [event for event in lines(folder / "trials.jsonl") if event["kind"] == kind]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {count} events {kind}: {lines(folder / 'trials.jsonl')}")


def search(samples: int, epochs: int, **others: Any) -> dict[str, Any]:
    scheduler = others.pop("scheduler", {"name": "none"})
    return {
        "budget": {"samples": samples, "epochs": epochs},
        "scheduler": scheduler,
        "searcher": {"name": "random"},
        **others,
    }


def started_once(folder: Path, trials: set[int]) -> bool:
    started = Counter(event["trial"] for event in lines(folder / "trials.jsonl") if event["kind"] == "started")
    return all(started[trial] == 1 for trial in trials)


@pytest.mark.slow
def test_losers_run_no_epoch_beyond_their_last(cluster: Toy, tmp_path: Path) -> None:
    scores = {"1": [0.9] * 9, "2": [0.1] * 9, "3": [0.5] * 9, "4": [0.95] * 9, "5": [0.92] * 9}
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 3.0}
    wanted = {"search": search(5, 9, scheduler=asha), "scores": scores, "slots": 1}
    trials = finish(start(cluster, tmp_path, wanted))["trials"]
    assert [(trial["state"], len(trial["epochs"])) for trial in trials] == [
        ("finished", 9),
        ("stopped", 1),
        ("stopped", 1),
        ("finished", 9),
        ("stopped", 3),
    ]
    assert trials[4]["reason"] == "not among the best after epoch 3"
    ran = Counter(line["trial"] for line in lines(tmp_path / "ran"))
    assert ran == {1: 9, 2: 1, 3: 1, 4: 9, 5: 3}
    assert len({line["pid"] for line in lines(tmp_path / "ran")}) == 1, "one process for all trials of a slot"


@pytest.mark.slow
def test_a_population_carries_weights_over(cluster: Toy, tmp_path: Path) -> None:
    pbt = {"name": "pbt", "interval": 2}
    wanted = {"search": search(4, 6, scheduler=pbt), "slots": 2, "checkpoint_s": None}
    trials = finish(start(cluster, tmp_path, wanted))["trials"]
    assert {trial["state"] for trial in trials} == {"finished"}
    assert all(len(trial["epochs"]) == 6 for trial in trials)
    events = lines(tmp_path / "trials.jsonl")
    carried = [event for event in events if event["kind"] == "ordered" and "donor" in event]
    assert len(carried) == 2, "one of four in each of two generations"
    began = lines(tmp_path / "began")
    for event in carried:
        epoch = max(e["epoch"] for e in events if e["kind"] == "saved" and e["time"] < event["time"])
        digests = {b["trial"]: b["digest"] for b in began if b["epoch"] == epoch + 1}
        assert digests[event["trial"]] == digests[event["donor"]]
        assert len(set(digests.values())) == 3
        donor = next(t for t in trials if t["number"] == event["donor"])
        assert event["parameters"] != donor["parameters"]


@pytest.mark.slow
def test_hyperband_lets_the_best_of_a_bracket_go_on(cluster: Toy, tmp_path: Path) -> None:
    band = {"name": "hyperband", "grace_epochs": 1, "reduction_factor": 3.0}
    scores = {str(number): [number / 10] * 9 for number in range(1, 10)}
    wanted = {"search": search(9, 9, scheduler=band), "scores": scores, "slots": 2}
    trials = finish(start(cluster, tmp_path, wanted))["trials"]
    assert [len(trial["epochs"]) for trial in trials] == [1, 1, 1, 1, 1, 1, 3, 3, 9]
    ran = Counter((line["trial"], line["epoch"]) for line in lines(tmp_path / "ran"))
    assert set(ran.values()) == {1}, "those that waited went on from their checkpoint"


@pytest.mark.slow
def test_failures_cost_one_trial_and_killed_ones_go_on(cluster: Toy, tmp_path: Path) -> None:
    wanted = {"search": search(4, 6), "failing": [2], "epoch_s": 0.3}
    process = start(cluster, tmp_path, wanted)
    first = wait_for(tmp_path, 3, "saved")
    assert first
    victim = next(line for line in reversed(lines(tmp_path / "ran")) if line["trial"] != 2)
    os.kill(victim["pid"], signal.SIGKILL)
    trials = {trial["number"]: trial for trial in finish(process)["trials"]}
    assert trials[2]["state"] == "failed"
    assert trials[2]["reason"] == "epoch 1: the loss is not finite"
    assert trials[2]["restarts"] == 0
    assert [trials[number]["state"] for number in (1, 3, 4)] == ["finished"] * 3
    killed = trials[victim["trial"]]
    assert killed["restarts"] == 1
    lost = wait_for(tmp_path, 1, "lost")
    assert lost[0]["reason"] == "its process died"
    ran = Counter(line["epoch"] for line in lines(tmp_path / "ran") if line["trial"] == killed["number"])
    assert sum(ran.values()) <= 7, "it went on from its checkpoint, not from the start"
    whole = max(line["weights"] for line in lines(tmp_path / "ran") if line["trial"] == killed["number"])
    assert whole == pytest.approx(6 * killed["parameters"]["lr0"])
    assert started_once(tmp_path, set(trials) - {killed["number"]})


@pytest.mark.slow
def test_a_trial_that_dies_again_and_again_is_given_up(cluster: Toy, tmp_path: Path) -> None:
    wanted = {"search": search(3, 2, max_failures=1), "dying": [2]}
    trials = {trial["number"]: trial for trial in finish(start(cluster, tmp_path, wanted))["trials"]}
    assert (trials[2]["state"], trials[2]["reason"]) == ("failed", "its process died (2 times)")
    assert [trials[number]["state"] for number in (1, 3)] == ["finished"] * 2
    assert started_once(tmp_path, {1, 3})


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_lost(cluster: Toy, tmp_path: Path) -> None:
    process = start(cluster, tmp_path, {"search": search(2, 8), "slots": 2, "epoch_s": 0.3, "hang_s": 6.0})
    wait_for(tmp_path, 2, "saved")
    victim = lines(tmp_path / "ran")[-1]
    os.kill(victim["pid"], signal.SIGSTOP)
    try:
        trials = {trial["number"]: trial for trial in finish(process)["trials"]}
    finally:
        if Path(f"/proc/{victim['pid']}").exists():
            os.kill(victim["pid"], signal.SIGKILL)
    assert {trial["state"] for trial in trials.values()} == {"finished"}
    lost = wait_for(tmp_path, 1, "lost")
    assert [event["trial"] for event in lost] == [victim["trial"]]
    assert "did not answer" in lost[0]["reason"]


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_repeats_nothing(cluster: Toy, tmp_path: Path) -> None:
    asha = {"name": "asha", "grace_epochs": 2, "reduction_factor": 2.0}
    wanted = {"search": search(8, 6, scheduler=asha, searcher={"name": "tpe", "startup": 3}), "epoch_s": 0.15}
    process = start(cluster, tmp_path, wanted)
    ended = {event["trial"] for event in wait_for(tmp_path, 3, "ended")}
    process.kill()
    process.communicate()
    before = lines(tmp_path / "trials.jsonl")
    with (tmp_path / "trials.jsonl").open("a") as journal:
        journal.write('{"kind": "epoch", "tri')  # cut short, as a full disk or a power cut does
    result = finish(start(cluster, tmp_path, wanted))
    assert len(result["trials"]) == 8
    assert {trial["state"] for trial in result["trials"]} <= {"finished", "stopped"}
    assert started_once(tmp_path, ended)
    after = lines(tmp_path / "trials.jsonl")
    assert after[: len(before)] == before
    suggested = [event["trial"] for event in after if event["kind"] == "suggested"]
    assert suggested == list(range(1, 9))
    assert Counter(event["trial"] for event in after if event["kind"] == "ended") == dict.fromkeys(range(1, 9), 1)


@pytest.mark.slow
def test_a_search_ends_on_time(cluster: Toy, tmp_path: Path) -> None:
    wanted = {"search": search(50, 1000), "epoch_s": 0.2, "deadline_s": 15.0}
    trials = finish(start(cluster, tmp_path, wanted))["trials"]
    assert 1 <= len(trials) <= 4
    assert {(trial["state"], trial["reason"]) for trial in trials} == {("stopped", "out of time")}


@pytest.mark.slow
def test_several_processes_train_one_trial(cluster: Toy, tmp_path: Path) -> None:
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 2.0}
    scores = {"1": [0.5] * 3, "2": [0.1] * 3, "3": [0.6] * 3}
    wanted = {"search": search(3, 3, scheduler=asha), "scores": scores, "slots": 1, "workers": 2}
    trials = finish(start(cluster, tmp_path, wanted))["trials"]
    assert [(trial["state"], len(trial["epochs"])) for trial in trials] == [
        ("finished", 3),
        ("stopped", 1),
        ("finished", 3),
    ]
    ranks = lines(tmp_path / "rank")
    assert Counter(line["rank"] for line in ranks) == {0: 7, 1: 7}
    assert {line["sum"] for line in ranks} == {3.0}


@pytest.mark.slow
def test_the_overhead_of_a_trial_stays_flat(cluster: Toy, tmp_path: Path) -> None:
    asha = {"name": "asha", "grace_epochs": 1, "reduction_factor": 3.0}
    wanted = {"search": search(200, 2, scheduler=asha, searcher={"name": "tpe"}), "checkpoint_s": None}
    result = finish(start(cluster, tmp_path, wanted))
    assert len(result["trials"]) == 200
    ended = [event["time"] for event in lines(tmp_path / "trials.jsonl") if event["kind"] == "ended"]
    early, late = ended[79] - ended[19], ended[199] - ended[139]
    print(f"60 trials: {early:.2f} s after the 20th, {late:.2f} s after the 140th")
    assert late < 3 * early + 2.0, "TPE itself looks at all earlier trials"


@pytest.mark.slow
def test_a_lost_node_costs_its_trials_nothing(cluster: Toy, tmp_path: Path) -> None:
    """The last test of this cluster: its second node is gone afterwards."""
    wanted = {"search": search(6, 8), "slots": 4, "epoch_s": 0.4}
    process = start(cluster, tmp_path, wanted)
    wait_for(tmp_path, 8, "saved")
    assert cluster[1].stdin
    assert cluster[1].stdout
    cluster[1].stdin.write("kill\n")
    cluster[1].stdin.flush()
    trials = finish(process)["trials"]
    assert {trial["state"] for trial in trials} == {"finished"}
    lost = wait_for(tmp_path, 1, "lost")
    assert lost, "trials ran on the node that was killed"
    nodes = {event["node"] for event in lines(tmp_path / "trials.jsonl") if event["kind"] == "started"}
    assert len(nodes) == 2
    survivors = set(range(1, 7)) - {event["trial"] for event in lost}
    assert started_once(tmp_path, survivors)
    for trial in {event["trial"] for event in lost}:
        repeated = Counter(line["epoch"] for line in lines(tmp_path / "ran") if line["trial"] == trial)
        assert sum(repeated.values()) <= 10, "it went on from its checkpoint"
