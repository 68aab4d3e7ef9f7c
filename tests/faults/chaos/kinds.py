"""The faults that chaos draws from. Each does its harm for real, waits until the run has felt it, and takes it away.

Each returns what was seen of it; one that was not felt raises ``NoEffect``, and so fails the whole run.
"""

import os
import signal
import time
from pathlib import Path

from ray_jobs.flows.checkpoints import EXPERIMENT
from tests.cluster.engine import docker
from tests.faults.chaos.containers import HANG_TIMEOUT_S, MLFLOW
from tests.faults.chaos.scene import Fault, NoEffect, Scene

SHORT_S = 10.0  # less than HANG_TIMEOUT_S: nobody dies of it
assert SHORT_S < HANG_TIMEOUT_S
PART_OF_A_CHECKPOINT = 1_000_000


# --- processes ---------------------------------------------------------------------------------------------------


def kill_rank(scene: Scene) -> str:
    began = time.time()
    os.kill(scene.site.rank_process(scene.chance.choice(scene.site.workers)), signal.SIGKILL)
    return scene.failure_after(began)


def kill_all_ranks(scene: Scene) -> str:
    began = time.time()
    for pid in [scene.site.rank_process(worker) for worker in scene.site.workers]:
        os.kill(pid, signal.SIGKILL)
    return scene.failure_after(began)


def kill_in_checkpoint(scene: Scene) -> str:
    """The rank that uploads, when a part of a checkpoint has gone to the store."""
    site = scene.site
    addresses = {site.address(worker): worker for worker in site.workers}
    site.proxy.bytes_per_s = 2e6  # long enough to be caught
    site.proxy.sent.clear()
    uploading = scene.until(
        lambda: next((a for a, n in site.proxy.sent.items() if n > PART_OF_A_CHECKPOINT and a in addresses), None),
        "a checkpoint is on its way",
    )
    began = time.time()
    os.kill(site.rank_process(addresses[uploading]), signal.SIGKILL)
    sent = site.proxy.sent[uploading] / 1e6
    site.proxy.bytes_per_s = None
    return f"{sent:.0f} MB of a checkpoint sent; {scene.failure_after(began)}"


def stop_rank(scene: Scene) -> str:
    began = time.time()
    pid = scene.site.rank_process(scene.chance.choice(scene.site.workers))
    os.kill(pid, signal.SIGSTOP)
    seen = scene.failure_after(began)
    scene.until(lambda: not Path(f"/proc/{pid}").exists(), "the process that stood still is gone")
    return seen


def kill_raylet(scene: Scene) -> str:
    """The node's own process; its container ends with it, and Docker starts it again."""
    began = time.time()
    [pid] = scene.site.processes(scene.chance.choice(scene.site.workers), "/raylet/raylet")
    os.kill(pid, signal.SIGKILL)
    return scene.failure_after(began)


def kill_driver(scene: Scene) -> str:
    scene.driver.kill()
    code = scene.driver.process.returncode
    if code != 128 + signal.SIGKILL:
        raise NoEffect(f"the driver ended with {code}")
    scene.resubmit()
    return f"exit code {code}; submitted again, it went on"


def second_driver(scene: Scene) -> str:
    with scene.site.submit(scene.run) as second:
        said = second.end(code=2, timeout=900)
    scene.mended()
    return said.strip().splitlines()[-1].rpartition(": ")[2].partition(";")[0]


# --- containers --------------------------------------------------------------------------------------------------


def kill_worker_container(scene: Scene) -> str:
    began, worker = time.time(), scene.chance.choice(scene.site.workers)
    docker("kill", worker)
    seen = scene.failure_after(began)
    time.sleep(scene.chance.uniform(0, 10))
    scene.site.start(worker)
    scene.mended()
    return seen


def stop_worker_container(scene: Scene) -> str:
    """SIGTERM and a deadline: the node tells Ray that it goes, and goes."""
    said, worker = len(scene.driver.lines), scene.chance.choice(scene.site.workers)
    docker("stop", worker, timeout=120)
    line = scene.driver.wait_for("a node of this run is being taken away", after=said, timeout=900)
    scene.site.start(worker)
    scene.mended()
    return scene.driver.lines[line - 1].partition(";")[0]


def pause_briefly(scene: Scene) -> str:
    worker = scene.chance.choice(scene.site.workers)
    docker("pause", worker)
    seen = scene.stands_still(SHORT_S - 2)
    docker("unpause", worker)
    scene.mended()
    return seen


def pause_for_long(scene: Scene) -> str:
    began, worker = time.time(), scene.chance.choice(scene.site.workers)
    docker("pause", worker)
    seen = scene.failure_after(began)
    docker("unpause", worker)
    scene.mended()
    return seen


def cut_network_briefly(scene: Scene) -> str:
    worker = scene.chance.choice(scene.site.workers)
    scene.site.cable(worker, "down")
    seen = scene.stands_still(SHORT_S - 2)
    scene.site.cable(worker, "up")
    scene.mended()
    return seen


def cut_network_for_long(scene: Scene) -> str:
    """It may come back with another address, as after a power cut."""
    began, worker = time.time(), scene.chance.choice(scene.site.workers)
    docker("network", "disconnect", scene.site.network, worker)
    seen = scene.failure_after(began)
    docker("network", "connect", "--alias", "ray-worker", scene.site.network, worker)
    scene.mended()
    return seen


def kill_head(scene: Scene) -> str:
    docker("kill", scene.site.head)
    code = scene.driver.process.wait(60)
    scene.site.start(scene.site.head)
    scene.resubmit()
    return f"the driver ended with {code}; submitted again, it went on"


# --- the object store --------------------------------------------------------------------------------------------


def _store(mode: str, enough: int, error: tuple[int, str] | None = None) -> Fault:
    def do(scene: Scene) -> str:
        proxy = scene.site.proxy
        before = proxy.seen[mode]
        proxy.error = error or proxy.error
        proxy.become(mode)
        scene.until(lambda: proxy.seen[mode] >= before + enough, f"the store {mode}")
        time.sleep(scene.chance.uniform(0, 10))
        proxy.become("passes")
        scene.mended()
        return f"{proxy.seen[mode] - before} connections"

    words = f"answers {error[0]} {error[1]}" if error else mode
    return Fault(f"object store {words}", do, stored=True)


def slow_store(scene: Scene) -> str:
    """200 ms and 0.5 MB/s: a checkpoint takes longer than an epoch, so epochs add none."""
    proxy, began = scene.site.proxy, time.time()
    proxy.delay_s, proxy.bytes_per_s = 0.2, 5e5
    scene.until(
        lambda: [line for line in scene.epochs() if line["time"] > began and not line["checkpoint"]],
        "an epoch that adds no checkpoint, since the one before is still on its way",
    )
    proxy.delay_s, proxy.bytes_per_s = 0.0, None
    scene.mended()
    skipped = [line for line in scene.epochs() if line["time"] > began and not line["checkpoint"]]
    return f"{len(skipped)} epochs added no checkpoint"


def kill_store(scene: Scene) -> str:
    before = scene.site.proxy.seen["unreachable"]
    docker("kill", scene.site.store)
    scene.until(lambda: scene.site.proxy.seen["unreachable"] >= before + 3, "the store's absence was felt")
    scene.site.start(scene.site.store)
    scene.mended()
    return f"{scene.site.proxy.seen['unreachable'] - before} connections failed"


def damage_newest(scene: Scene) -> str:
    """Half of the newest checkpoint is gone; the ranks that are killed then would begin with it."""
    site, said = scene.site, len(scene.driver.lines)
    storage = site.storage(scene.run)
    site.proxy.become("refuses")  # so that it stays the newest
    time.sleep(1)
    listed = [line["checkpoint"] for line in scene.epochs() if line["checkpoint"]][-1]
    kept = {name for name in storage.folders_below(EXPERIMENT) if name.startswith("epoch_")}
    for name in {listed, max(kept)} & kept:  # one may be stored that Ray has not heard of, and the one before be gone
        place = {"Bucket": storage.bucket, "Key": f"{storage.prefix}/{EXPERIMENT}/{name}/state.pt"}
        whole = storage._client.get_object(**place)["Body"].read()
        storage._client.put_object(**place, Body=whole[: len(whole) // 2])
    began = time.time()
    for pid in [site.rank_process(worker) for worker in site.workers]:  # with them ends every upload
        os.kill(pid, signal.SIGKILL)
    site.proxy.become("passes")
    scene.mended()
    scene.failure_after(began)
    line = scene.driver.wait_for("damaged checkpoint: ", after=said, timeout=900)
    return f"{listed}: " + scene.driver.lines[line - 1].partition("state.pt: ")[2]


# --- MLflow ------------------------------------------------------------------------------------------------------


def _mlflow(harm: str, mend: str) -> Fault:
    def do(scene: Scene) -> str:
        site, ended = scene.site, len(scene.epochs())
        docker(harm, site.mlflow)
        scene.until(lambda: len(scene.epochs()) > ended + 1, "epochs go on while MLflow does not")
        waiting = site.unsent(scene.run)
        if not waiting:
            raise NoEffect(f"MLflow has everything at {MLFLOW}")
        docker(mend, site.mlflow)
        site.healthy(site.mlflow)
        scene.mended()
        return f"{len(scene.epochs()) - ended} epochs meanwhile, {waiting} bytes waited"

    return Fault("MLflow killed" if harm == "kill" else "MLflow hangs (paused)", do, tracked=True)


FAULTS = (
    Fault("SIGKILL of a rank", kill_rank),
    Fault("SIGKILL of both ranks", kill_all_ranks),
    Fault("SIGKILL of a rank in its upload", kill_in_checkpoint),
    Fault("SIGSTOP of a rank", stop_rank),
    Fault("SIGKILL of a raylet", kill_raylet),
    Fault("SIGKILL of the driver", kill_driver),
    Fault("a second driver", second_driver),
    Fault("docker kill of a worker", kill_worker_container),
    Fault("docker stop of a worker", stop_worker_container),
    Fault("docker pause of a worker, short", pause_briefly),
    Fault("docker pause of a worker, long", pause_for_long),
    Fault("network of a worker cut, short", cut_network_briefly),
    Fault("network of a worker cut, long", cut_network_for_long),
    Fault("docker kill of the head", kill_head),
    _store("refuses", 3),
    _store("answers", 3, (503, "SlowDown")),
    _store("answers", 3, (403, "InvalidAccessKeyId")),
    _store("cuts", 2),
    _store("swallows", 1),
    Fault("object store slow", slow_store, stored=True),
    Fault("docker kill of the object store", kill_store, stored=True),
    Fault("newest checkpoint damaged, ranks killed", damage_newest),
    _mlflow("kill", "start"),
    _mlflow("pause", "unpause"),
)
