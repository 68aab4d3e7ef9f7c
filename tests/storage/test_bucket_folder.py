"""Objects as files: listed with their names checked, fetched through cut connections, compared with what is stored."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.errors import DataError, PlatformError
from ray_jobs.storage import bucket_folder
from ray_jobs.storage.bucket_folder import RemoteFile, open_bucket_folder, refused_names
from tests.s3_gate import Gate, gate_before

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def client(empty_s3: str) -> Any:
    import boto3
    from botocore.config import Config

    plain = Config(request_checksum_calculation="when_required")  # no checksums but those that a test asks for
    client = boto3.client("s3", endpoint_url=empty_s3, region_name="us-east-1", config=plain)
    client.create_bucket(Bucket="xrays")
    return client


@pytest.fixture
def gate(empty_s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    with gate_before(empty_s3) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
        yield gate


def in_parts(client: Any) -> None:
    """6 MB in two parts of different sizes."""
    which = {"Bucket": "xrays", "Key": "set/a.png"}
    upload = client.create_multipart_upload(**which)["UploadId"]
    parts = []
    for number, size in enumerate((5 << 20, 1 << 20), start=1):
        body = CONTENT * (size // len(CONTENT) + 1)
        part = client.upload_part(**which, UploadId=upload, PartNumber=number, Body=body[:size])
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(**which, UploadId=upload, MultipartUpload={"Parts": parts})


def put(client: Any, kind: str) -> RemoteFile:
    if kind == "parts":
        in_parts(client)
    elif kind == "metadata":
        digest = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
        client.put_object(Bucket="xrays", Key="set/a.png", Body=CONTENT, Metadata=digest)
    elif kind == "checksum":
        client.put_object(Bucket="xrays", Key="set/a.png", Body=CONTENT, ChecksumAlgorithm="SHA256")
    else:
        client.put_object(
            Bucket="xrays", Key="set/a.png", Body=CONTENT, **({"ChecksumAlgorithm": "CRC32"} if kind == "crc" else {})
        )
    [file] = open_bucket_folder("s3://xrays/set").listing()
    return file


@pytest.mark.parametrize("kind", ["etag", "metadata", "checksum", "crc", "parts"])
def test_a_byte_spoilt_on_the_way_is_found_and_fetched_again(
    client: Any, gate: Gate, tmp_path: Path, kind: str
) -> None:
    file = put(client, kind)
    gate.flip = 1
    digest = open_bucket_folder("s3://xrays/set").fetch(file, tmp_path / "a")
    assert len(gate.gets) == 2
    assert hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() == digest
    assert client.get_object(Bucket="xrays", Key="set/a.png")["Body"].read() == (tmp_path / "a").read_bytes()
    gate.flip = 2
    with pytest.raises(
        PlatformError, match=r"s3://xrays/set/a\.png: arrives damaged: its (MD5|SHA-256|checksum) is not the one"
    ):
        open_bucket_folder("s3://xrays/set").fetch(file, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_metadata_that_disagrees_is_damage(client: Any, tmp_path: Path) -> None:
    client.put_object(Bucket="xrays", Key="set/a.png", Body=b"rotten", Metadata={"sha256": "0" * 64})
    folder = open_bucket_folder("s3://xrays/set")
    with pytest.raises(PlatformError, match="its SHA-256 is not the one that it was stored with"):
        folder.fetch(folder.listing()[0], tmp_path / "a")


def test_a_cut_connection_is_taken_up_where_it_ended(client: Any, gate: Gate, tmp_path: Path) -> None:
    file = put(client, "etag")
    gate.cut = 2
    open_bucket_folder("s3://xrays/set").fetch(file, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert gate.ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_a_busy_store_is_asked_again(client: Any, gate: Gate, tmp_path: Path) -> None:
    file = put(client, "etag")
    gate.refuse = 4  # more than the client's own tries
    open_bucket_folder("s3://xrays/set").fetch(file, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_store_that_stays_away_is_given_up(
    client: Any, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(client, "etag")
    gate.refuse = 1000
    monkeypatch.setattr(bucket_folder, "PATIENCE_S", 0.5)
    with pytest.raises(PlatformError, match=r"set/a\.png: http://127.* cannot be used: .*check AWS_ENDPOINT_URL"):
        open_bucket_folder("s3://xrays/set").fetch(file, tmp_path / "a")


def test_an_object_that_changed_or_went_is_said(client: Any, tmp_path: Path) -> None:
    file = put(client, "etag")
    client.put_object(Bucket="xrays", Key="set/a.png", Body=b"new")
    with pytest.raises(PlatformError, match="is not what it was when the data set was listed; start again"):
        open_bucket_folder("s3://xrays/set").fetch(file, tmp_path / "a")
    client.delete_object(Bucket="xrays", Key="set/a.png")
    with pytest.raises(PlatformError, match="is not what it was when the data set was listed; start again"):
        open_bucket_folder("s3://xrays/set").fetch(file, tmp_path / "a")


def test_an_empty_object_is_an_empty_file(client: Any, tmp_path: Path) -> None:
    client.put_object(Bucket="xrays", Key="set/a.txt", Body=b"")
    folder = open_bucket_folder("s3://xrays/set")
    folder.fetch(folder.listing()[0], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/a", "a//b", "./a", "a\\b", "..\\a", "a\0b", "a\nb", "a/" + "x" * 256, "..", "a/"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    assert refused_names(["images/ok.png", name]) == [name]


def test_a_name_that_is_a_file_and_a_folder_is_refused() -> None:
    assert refused_names(["images", "images/train/a.png", "labels/a.txt"]) == ["images/train/a.png"]
    assert refused_names(["images/é ü.png", "images/..a.png", "a.b/c..d", "images/train/a.png"]) == []


def test_a_listing_with_such_names_is_refused_as_a_whole(client: Any) -> None:
    for key in ("set/ok.png", "set/a\\..\\b", "set//etc/passwd"):
        client.put_object(Bucket="xrays", Key=key, Body=b"x")
    with pytest.raises(DataError, match=r"s3://xrays/set: names that cannot be files .*'/etc/passwd', 'a.*b'"):
        open_bucket_folder("s3://xrays/set").listing()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://none/set", r"s3://none/set: the bucket 'none' does not exist at http://.*; correct data or"),
        ("s3://xrays/none", "s3://xrays/none: holds no object; correct the bucket or the prefix"),
        ("s3://No_Bucket/x", "s3://No_Bucket/x: "),
        ("s3://", "must be s3://bucket/prefix"),
        ("s3://xrays/a/../b", "the prefix cannot be a folder"),
    ],
)
@pytest.mark.usefixtures("client")
def test_a_place_that_is_not_there_is_said(url: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_bucket_folder(url).listing()


@pytest.mark.usefixtures("empty_s3")
def test_a_wrong_endpoint_and_missing_keys_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9 cannot be used: .*check AWS_ENDPOINT_URL"):
        open_bucket_folder("s3://xrays/set").listing()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9 cannot be used: .*check AWS_ENDPOINT_URL"):
        open_bucket_folder("s3://xrays/set").listing()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DataError, match="no keys; set AWS_ACCESS_KEY_ID"):
        open_bucket_folder("s3://xrays/set").listing()
