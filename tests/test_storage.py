"""One door to disk and S3: verified, whole or not at all, and clear about what is wrong before anything starts."""

import http.server
import os
import pickle
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from ray_jobs.errors import PlatformError, RunExists, StorageError
from ray_jobs.flows.ownership import claim_storage
from ray_jobs.storage import FolderStorage, S3Storage, Storage, open_storage, scratch_folder, sha256_of

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(f"{s3_server}/moto-api/reset", data=b"").close()
    storage = S3Storage("xrays", "checkpoints/run")
    storage._client.create_bucket(Bucket="xrays")
    return storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "stored")
    return request.getfixturevalue("bucket")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state.pt").write_bytes(os.urandom(3_000_000))
    (folder / "manifest.json").write_text("{}")
    return folder


def test_what_was_put_comes_back(storage: Storage, checkpoint: Path, tmp_path: Path) -> None:
    storage.probe()
    storage.put_folder(checkpoint, "a/epoch_00001")
    assert storage.get_file("a/epoch_00001/state.pt", tmp_path / "back.pt")
    assert sha256_of(tmp_path / "back.pt") == sha256_of(checkpoint / "state.pt")
    assert not storage.get_file("a/epoch_00002/state.pt", tmp_path / "none.pt")
    assert not (tmp_path / "none.pt").exists()


def test_an_orphan_of_the_same_name_is_replaced(storage: Storage, checkpoint: Path, tmp_path: Path) -> None:
    storage.put_folder(checkpoint, "epoch_00001")
    (checkpoint / "state.pt").write_bytes(b"new")
    storage.put_folder(checkpoint, "epoch_00001")
    storage.get_file("epoch_00001/state.pt", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"new"


def test_a_probe_leaves_nothing(tmp_path: Path, bucket: S3Storage) -> None:
    FolderStorage(tmp_path / "new" / "place").probe()
    assert not (tmp_path / "new" / "place").exists()
    bucket.probe()
    assert "Contents" not in bucket._client.list_objects_v2(Bucket="xrays")


def test_ray_finds_the_same_place(bucket: S3Storage, checkpoint: Path) -> None:
    bucket.put_folder(checkpoint, "checkpoints/epoch_00001")
    path, filesystem = pickle.loads(pickle.dumps(bucket)).ray_location()
    with filesystem.open_input_stream(f"{path}/checkpoints/epoch_00001/manifest.json") as file:
        assert file.read() == b"{}"


def test_a_damaged_object_is_found(bucket: S3Storage, checkpoint: Path, tmp_path: Path) -> None:
    bucket.put_folder(checkpoint, "epoch_00001")
    key = "checkpoints/run/epoch_00001/state.pt"
    metadata = bucket._client.head_object(Bucket="xrays", Key=key)["Metadata"]
    bucket._client.put_object(Bucket="xrays", Key=key, Body=b"rotten", Metadata=metadata)
    with pytest.raises(PlatformError, match="the object is damaged"):
        bucket.get_file("epoch_00001/state.pt", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.usefixtures("bucket")
def test_a_missing_bucket_is_said() -> None:
    with pytest.raises(StorageError, match=r"the bucket 'none' does not exist at http://.*; create it or correct"):
        S3Storage("none", "x").probe()


def test_a_store_that_is_down_is_said_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9 cannot be used: .*check AWS_ENDPOINT_URL"):
        S3Storage("xrays", "x").probe()
    assert time.monotonic() - started < 10


def test_no_keys_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="no keys; set AWS_ACCESS_KEY_ID"):
        S3Storage("xrays", "x").probe()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("InvalidAccessKeyId", "does not know this key; check AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        ("AccessDenied", "denies access; check the rights"),
    ],
)
def test_refused_keys_are_said(monkeypatch: pytest.MonkeyPatch, code: str, words: str) -> None:
    """A stand-in answers as S3 servers do; the real refusal of a real server is shown in tests/cluster."""

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match=words) as caught:
            S3Storage("xrays", "x").probe()
        server.shutdown()
    assert "secret" not in str(caught.value).replace("AWS_SECRET", "")


def test_a_place_belongs_to_one_run(storage: Storage) -> None:
    claim_storage(storage, "first")
    claim_storage(storage, "first")
    with pytest.raises(RunExists, match="another run keeps its checkpoints there"):
        claim_storage(storage, "second")


def test_checkpoints_of_nobody_known_are_left_alone(storage: Storage, checkpoint: Path) -> None:
    storage.put_file(checkpoint / "manifest.json", "checkpoints/checkpoint_manager_snapshot.json")
    with pytest.raises(RunExists, match="another run keeps its checkpoints there"):
        claim_storage(storage, "second")


def test_scratch_folders_of_killed_processes_are_removed() -> None:
    script = "from ray_jobs.storage import scratch_folder; print(scratch_folder('test'))"
    dead = Path(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    )
    assert dead.is_dir()
    mine = scratch_folder("test")
    assert mine.is_dir()
    assert not dead.exists()
    assert scratch_folder("test") != mine
    assert mine.is_dir()


def test_addresses(tmp_path: Path) -> None:
    assert open_storage(None, tmp_path) == FolderStorage(tmp_path)
    assert open_storage("s3://bucket/a/b/", tmp_path) == S3Storage("bucket", "a/b")
    assert open_storage(str(tmp_path / "x"), tmp_path) == FolderStorage(tmp_path / "x")
    for wrong in ("s3://", "gs://bucket"):
        with pytest.raises(StorageError, match=r"storage\.url"):
            open_storage(wrong, tmp_path)


def test_an_endpoint_without_a_scheme_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("minio:9000", "minio", "http://"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StorageError, match=f"AWS_ENDPOINT_URL: {endpoint}: is no address; write it with http://"):
            S3Storage("xrays", "run").probe()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written to"):
        FolderStorage(tmp_path / "file" / "x").probe()
