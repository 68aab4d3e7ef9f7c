"""An object store that goes away in every way a network knows: nothing dies, nothing is missing, nobody waits."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ray_jobs.storage import Patience, S3Storage
from tests.faults.drive import (
    EPOCHS,
    SMALL,
    Drive,
    epochs,
    journal,
    stored_checkpoints,
    verify_checkpoints,
    wait_until,
)
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.slow
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between the run and the store; this process asks the store itself."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    S3Storage("xrays", "")._client.create_bucket(Bucket="xrays")
    proxy = Proxy(s3_server)
    yield proxy
    proxy.close()


def start(folder: Path, data: Path, proxy: Proxy, name: str, *options: str) -> Drive:
    arguments = ["--data", data / "data.yaml", "--run-name", name, *SMALL, "storage.url=s3://xrays", *options]
    return Drive(folder, *arguments, **KEYS, AWS_ENDPOINT_URL=proxy.url)


@pytest.mark.timeout(900)
def test_an_outage_in_mid_run_costs_no_checkpoint(
    xrays_mini: Path, tmp_path: Path, proxy: Proxy, reference: dict[int, str], timing: Callable[[str], None]
) -> None:
    """Refused, 503, cut half way, a key that is refused, and swallowed, one after the other, each until it was felt."""
    run = tmp_path / "runs" / "outage"
    with start(tmp_path, xrays_mini, proxy, "outage") as drive:
        drive.wait_for("epoch 1/")
        began = time.monotonic()
        for mode, error, enough in (
            ("refuses", None, 3),
            ("answers", (503, "SlowDown"), 3),
            ("cuts", None, 2),
            ("answers", (403, "InvalidAccessKeyId"), 2),
            ("swallows", None, 1),
        ):
            before = proxy.seen[mode]
            proxy.error = error or proxy.error
            proxy.become(mode)
            wait_until(lambda: proxy.seen[mode] >= before + enough, f"{mode} was felt")  # noqa: B023
        drive.wait_for("training goes on, checkpoints wait and are tried again")
        proxy.bytes_per_s = 1e7  # so that the run does not end before it looks at the store again
        proxy.become("passes")
        drive.wait_for("the object store is back after ")
        timing(f"object store away for {time.monotonic() - began:.0f} s: {dict(proxy.seen)}")
        drive.end()
    lines = [line["metrics"] for line in journal(run) if line["kind"] == "epoch"]
    assert lines[-1]["storage_retries"] > 0
    assert lines[-1]["storage_trouble"]
    assert not [line for line in journal(run) if line["kind"] == "failure"]
    assert epochs(run) == reference
    storage = S3Storage("xrays", "outage")
    stored = stored_checkpoints(run)
    assert stored[-1] == f"epoch_{EPOCHS:05d}"
    assert len(stored) == EPOCHS - lines[-1]["checkpoints_dropped"]
    verify_checkpoints(storage, stored, tmp_path / "back")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_three_minutes_without_a_store_cost_no_checkpoint_and_no_worker(
    xrays_mini: Path, tmp_path: Path, proxy: Proxy, reference: dict[int, str], timing: Callable[[str], None]
) -> None:
    """Half of them refused, half of them swallowed; the limits are those that a run has by itself."""
    run = tmp_path / "runs" / "minutes"
    with start(tmp_path, xrays_mini, proxy, "minutes") as drive:
        drive.wait_for("epoch 2/")
        workers = set(drive.workers())
        for mode in ("refuses", "swallows"):
            before = proxy.seen[mode]
            proxy.become(mode)
            time.sleep(90)
            assert proxy.seen[mode] > before
        assert set(drive.workers()) == workers
        proxy.become("passes")
        came_back = time.monotonic()
        drive.wait_for("the object store is back after ")
        drive.end()
    timing(f"object store away for 180 s: the run had ended {time.monotonic() - came_back:.0f} s after it came back")
    assert not [line for line in journal(run) if line["kind"] in ("failure", "outage")]
    assert epochs(run) == reference
    stored = stored_checkpoints(run)
    assert stored[-1] == f"epoch_{EPOCHS:05d}"
    verify_checkpoints(S3Storage("xrays", "minutes"), stored, tmp_path / "back")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_outage_longer_than_uploads_wait_is_waited_for_outside(
    xrays_mini: Path, tmp_path: Path, proxy: Proxy, reference: dict[int, str]
) -> None:
    """Ray's run ends with the upload's error; the one after it goes on from the last checkpoint that was stored."""
    run = tmp_path / "runs" / "longer"
    with start(tmp_path, xrays_mini, proxy, "longer", "storage.patience_s=20") as drive:
        drive.wait_for("epoch 2/")
        proxy.become("refuses")
        drive.wait_for("(tried again for ")
        proxy.become("passes")
        drive.end()
    assert proxy.seen["refuses"] > 0
    assert [line["kind"] for line in journal(run)].count("outage") == 1
    assert epochs(run) == reference
    verify_checkpoints(S3Storage("xrays", "longer"), stored_checkpoints(run), tmp_path / "back")


@pytest.mark.timeout(900)
def test_a_slow_store_blocks_nobody(
    xrays_mini: Path, tmp_path: Path, proxy: Proxy, reference: dict[int, str], timing: Callable[[str], None]
) -> None:
    """200 ms and 2 MB/s: a checkpoint takes longer than an epoch, so some are dropped, and the last is there.

    Training is held for the copying in memory, 50 to 250 ms on two busy cores; a fiftieth of the upload is the limit,
    which is as slow on every machine.
    """
    run = tmp_path / "runs" / "slow"
    proxy.delay_s, proxy.bytes_per_s = 0.2, 2e6
    with start(tmp_path, xrays_mini, proxy, "slow") as drive:
        drive.end()
    lines = [line["metrics"] for line in journal(run) if line["kind"] == "epoch"]
    blocked = [line["checkpoint_blocked_seconds"] for line in lines]
    timing(f"slow store: training thread blocked {1000 * max(blocked):.0f} ms at the longest")
    assert 0 < lines[-1]["checkpoints_dropped"] < EPOCHS
    assert epochs(run) == reference
    stored = stored_checkpoints(run)
    assert stored[-1] == f"epoch_{EPOCHS:05d}"
    verify_checkpoints(S3Storage("xrays", "slow"), stored, tmp_path / "back")
    smallest = min(sum(file.stat().st_size for file in folder.iterdir()) for folder in (tmp_path / "back").iterdir())
    assert max(blocked) < smallest / proxy.bytes_per_s / 50


@pytest.mark.timeout(300)
def test_a_store_that_is_down_at_the_start_starts_nothing(xrays_mini: Path, tmp_path: Path, proxy: Proxy) -> None:
    proxy.become("refuses")
    with start(tmp_path, xrays_mini, proxy, "none") as drive:
        said = drive.end(code=2)
    assert proxy.seen["refuses"] > 0
    assert f"{proxy.url} cannot be used" in said
    assert "check AWS_ENDPOINT_URL and the network" in said
    assert not (tmp_path / "runs" / "none").exists()


def test_waiting_has_an_end_and_what_no_waiting_mends_is_said_at_once(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray_jobs.errors import StorageError, StoreOutage

    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1000)
    started = time.monotonic()
    with pytest.raises(StorageError, match="the bucket 'none' does not exist"):
        S3Storage("none", "").put_file(file, "file")
    assert time.monotonic() - started < 60  # and not after 900, which is how long an outage is waited for
    cases = ((503, "SlowDown", "tried again for"), (403, "InvalidAccessKeyId", "does not know this key"))
    for status, code, words in cases:
        proxy.error = (status, code)
        proxy.become("answers")
        seen = proxy.seen["answers"]
        with pytest.raises(StoreOutage, match=words):
            S3Storage("xrays", "", Patience(outage_s=3, refused_s=3)).put_file(file, "file")
        assert proxy.seen["answers"] - seen >= 2
