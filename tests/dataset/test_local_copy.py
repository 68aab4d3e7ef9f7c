"""A data set in a bucket: copied once per node, whole, verified, and never where it does not belong."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.dataset import copies
from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import DataDescription, read_description
from ray_jobs.dataset.local_copy import bring_here, copy_here
from ray_jobs.dataset.phantom import draw_phantoms
from ray_jobs.dataset.source import describe_data
from ray_jobs.errors import DataError, PlatformError, StorageError
from tests.s3_gate import Gate, gate_before

URL = "s3://xrays/sets/chest"
COPY = "import sys; from pathlib import Path; from ray_jobs.dataset.local_copy import copy_here; "
COPY += "copy_here(sys.argv[1], Path(sys.argv[2]), lambda line: print(line, flush=True))"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 images with labels; changed by no test."""
    return draw_phantoms(tmp_path_factory.mktemp("phantoms"), train=6, val=2, test=2, size=64).parent


@pytest.fixture
def client(empty_s3: str) -> Any:
    import boto3

    client = boto3.client("s3", endpoint_url=empty_s3, region_name="us-east-1")
    client.create_bucket(Bucket="xrays")
    return client


@pytest.fixture
def stored(phantoms: Path, client: Any) -> dict[str, Path]:
    """The phantoms below ``URL``: each object's name and its file."""
    files = {str(file.relative_to(phantoms)): file for file in sorted(phantoms.rglob("*")) if file.is_file()}
    for name, file in files.items():
        client.put_object(Bucket="xrays", Key=f"sets/chest/{name}", Body=file.read_bytes())
    client.put_object(Bucket="xrays", Key="sets/chest/images/", Body=b"")  # as some tools draw a folder
    client.put_object(Bucket="xrays", Key="sets/chest-2/not-ours.txt", Body=b"x")
    return files


@pytest.fixture
def gate(empty_s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    with gate_before(empty_s3) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
        yield gate


def names_below(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def another_process(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", COPY, URL, str(cache)], stdout=subprocess.PIPE, text=True)


def test_every_file_is_copied_once_and_none_beside(stored: dict[str, Path], gate: Gate, tmp_path: Path) -> None:
    origin = copy_here(URL, tmp_path)
    assert names_below(origin.files) == set(stored)
    assert all((origin.files / name).read_bytes() == file.read_bytes() for name, file in stored.items())
    assert sorted(gate.gets) == sorted(f"xrays/sets/chest/{name}" for name in stored)
    again = copy_here(URL, tmp_path)
    assert again == origin
    assert (origin.copied, again.copied) == (sum(file.stat().st_size for file in stored.values()), 0)
    assert bring_here(origin) == 0
    assert len(gate.gets) == len(stored)
    assert origin.folder.stat().st_mode & 0o077 == 0, "X-rays of patients are nobody else's"


@pytest.mark.parametrize("address", [URL, f"{URL}/", f"{URL}/data.yaml", "yaml"])
def test_a_data_set_is_found_by_each_of_its_addresses(
    stored: dict[str, Path], phantoms: Path, tmp_path: Path, address: str
) -> None:
    if address == "yaml":  # a file of one's own that names the bucket
        (tmp_path / "mine.yaml").write_text((phantoms / "data.yaml").read_text() + f"path: {URL}\n")
        address = str(tmp_path / "mine.yaml")
    description = describe_data(address, str(tmp_path / "cache"))
    report = check_dataset(description, show_progress=False)
    there = check_dataset(read_description(phantoms / "data.yaml"), show_progress=False)
    assert report.fingerprint == there.fingerprint, "the same contents are the same data set, wherever they lie"
    assert report.index.source == URL
    assert report.index.as_one_class().origin == description.origin
    assert len(report.index.splits["train"]) == 6
    assert stored


def test_a_killed_copy_goes_on_where_it_was(stored: dict[str, Path], gate: Gate, tmp_path: Path) -> None:
    gate.pass_first = len(stored) // 2
    killed = another_process(tmp_path)
    assert gate.full.wait(60)
    while sum(text.count("sha256") for text in map(Path.read_text, tmp_path.glob("*/journal.jsonl"))) < gate.pass_first:
        assert killed.poll() is None  # until what was let through has arrived
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    [partly] = tmp_path.glob("*/chest")
    whole = names_below(partly)
    assert len(whole) == gate.pass_first
    gate.pass_first = None
    gate.gets.clear()
    gate.open.set()
    origin = copy_here(URL, tmp_path)
    asked = {name.removeprefix("xrays/sets/chest/") for name in gate.gets}
    assert asked >= set(stored) - whole
    assert not asked & whole
    assert names_below(origin.files) == set(stored)
    assert not (origin.folder / "parts").exists()


def test_of_two_processes_one_copies_and_the_other_waits(stored: dict[str, Path], gate: Gate, tmp_path: Path) -> None:
    gate.pass_first = 3
    first = another_process(tmp_path)
    assert gate.full.wait(60)
    second = another_process(tmp_path)
    assert second.stdout
    assert second.stdout.readline().startswith(f"waiting for another process that copies {URL}")
    gate.open.set()
    said = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "copying" in said[0]
    assert "copying" not in said[1]
    assert sorted(gate.gets) == sorted(f"xrays/sets/chest/{name}" for name in stored)


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_flipped_byte_in_the_copy_is_found(
    stored: dict[str, Path], gate: Gate, tmp_path: Path, keep_time: bool
) -> None:
    origin = copy_here(URL, tmp_path)
    victim = sorted((origin.files / "images").rglob("*.png"))[0]
    before, content = victim.stat(), victim.read_bytes()
    victim.chmod(0o600)
    victim.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    if keep_time:  # a rotten disk
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    gate.gets.clear()
    # A driver compares every hash; a worker that comes soon afterwards sees what was written since.
    copy_here(URL, tmp_path) if keep_time else bring_here(origin)
    assert [name.rpartition("/")[2] for name in gate.gets] == [victim.name]
    assert victim.read_bytes() == content
    assert stored


def test_a_removed_file_comes_back_for_a_worker(stored: dict[str, Path], gate: Gate, tmp_path: Path) -> None:
    origin = copy_here(URL, tmp_path)
    shutil.rmtree(origin.files / "labels")
    gate.gets.clear()
    bring_here(origin)
    assert names_below(origin.files) == set(stored)
    assert len(gate.gets) == sum(name.startswith("labels/") for name in stored)


def test_a_changed_object_is_fetched_and_the_rest_taken_over(
    stored: dict[str, Path], client: Any, gate: Gate, tmp_path: Path
) -> None:
    before = copy_here(URL, tmp_path)
    label = next(name for name in stored if name.startswith("labels/train"))
    client.put_object(Bucket="xrays", Key=f"sets/chest/{label}", Body=b"0 0.5 0.5 0.125 0.125\n")
    client.delete_object(Bucket="xrays", Key="sets/chest/images/none.png")
    gate.gets.clear()
    after = copy_here(URL, tmp_path)
    assert gate.gets == [f"xrays/sets/chest/{label}"]
    assert (after.files / label).read_text() == "0 0.5 0.5 0.125 0.125\n"
    assert (before.files / label).read_bytes() == stored[label].read_bytes(), "a run on the old copy keeps it"
    assert names_below(after.files) == set(stored)


def test_a_node_without_a_copy_refuses_what_the_driver_did_not_check(
    stored: dict[str, Path], client: Any, tmp_path: Path
) -> None:
    origin = copy_here(URL, tmp_path)
    shutil.rmtree(origin.folder)
    copies._held.pop(origin.folder).close()
    client.put_object(Bucket="xrays", Key=f"sets/chest/{next(iter(stored))}", Body=b"new")
    with pytest.raises(
        PlatformError, match="changed since this run checked it, and this node has no copy; start again"
    ):
        bring_here(origin)


def test_a_disk_that_is_too_small_is_said_before_copying(
    stored: dict[str, Path], gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "SPARE", 1 << 60)
    words = rf"{tmp_path}: the disk is too small for {URL}: 0\.\d+ GB needed .* GB free; make room, or set"
    with pytest.raises(StorageError, match=words):
        copy_here(URL, tmp_path)
    assert gate.gets == []
    assert stored


def test_unused_copies_make_room_and_used_ones_stay(
    stored: dict[str, Path], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = another_process(tmp_path)
    finished.communicate(timeout=60)
    [unused] = tmp_path.glob("chest-*")
    client.put_object(Bucket="xrays", Key="sets/other/a.txt", Body=b"a")
    used = copy_here("s3://xrays/sets/other", tmp_path)
    monkeypatch.setattr(copies, "SPARE", 1 << 60)
    client.put_object(Bucket="xrays", Key="sets/third/a.txt", Body=b"a")
    with pytest.raises(StorageError, match="the disk is too small"):
        copy_here("s3://xrays/sets/third", tmp_path)
    assert not unused.exists()
    assert (used.files / "a.txt").read_bytes() == b"a"
    assert stored


def test_a_copy_that_nobody_used_for_a_month_goes(stored: dict[str, Path], client: Any, tmp_path: Path) -> None:
    another_process(tmp_path).communicate(timeout=60)
    [unused] = tmp_path.glob("chest-*")
    month = copies.FORGOTTEN_AFTER_S
    os.utime(unused / "in-use", (unused.stat().st_mtime - month, unused.stat().st_mtime - month))
    client.put_object(Bucket="xrays", Key="sets/other/a.txt", Body=b"a")
    copy_here("s3://xrays/sets/other", tmp_path)
    assert not unused.exists()
    assert stored


@pytest.mark.usefixtures("stored")
def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"cannot be written to: .*set storage\.data_cache .*every node can write to"
    ):
        copy_here(URL, tmp_path / "file" / "cache")


def describe(client: Any, text: str, tmp_path: Path) -> DataDescription:
    client.put_object(Bucket="xrays", Key="sets/chest/data.yaml", Body=text.encode())
    return describe_data(f"{URL}/data.yaml", str(tmp_path / "cache"))


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path: /data/chest\ntrain: images/train\n", r"s3://xrays/sets/chest/data.yaml: path: must be a folder below"),
        ("path: ../other\ntrain: images/train\n", "path: must be a folder below the file's own"),
        ("path: s3://elsewhere/x\ntrain: images/train\n", "path: must be a folder below the file's own"),
        ("train: [images\n", r"s3://xrays/sets/chest/data\.yaml:\d: not valid YAML"),
    ],
)
def test_a_data_yaml_that_leads_elsewhere_is_refused_before_copying(
    client: Any, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        describe(client, text, tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("stored")
def test_images_outside_of_the_copy_are_refused(client: Any, tmp_path: Path, phantoms: Path) -> None:
    lines = f"{phantoms / 'images' / 'train' / 'x.png'}\n"
    client.put_object(Bucket="xrays", Key="sets/chest/list.txt", Body=lines.encode())
    description = describe(client, "train: list.txt\nval: images/val\nnames: [Mass]\n", tmp_path)
    with pytest.raises(DataError, match=f"{URL}: 1 images lie outside of it, such as {phantoms}"):
        check_dataset(description, show_progress=False)
