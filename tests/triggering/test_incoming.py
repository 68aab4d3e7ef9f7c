"""New images in a bucket: fetched once, verified, and gone here when they are gone there."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ray_jobs.errors import DataError
from ray_jobs.triggering.incoming import describe_incoming


@pytest.fixture
def bucket(empty_s3: str) -> Any:  # noqa: ARG001 - its environment is used
    from ray_jobs.storage.s3 import s3_client

    client = s3_client(connect_timeout=5, read_timeout=30, attempts=2)
    client.create_bucket(Bucket="xrays")
    return client


def drop(client: Any, number: int, labelled: bool = True) -> None:
    pixels = np.random.default_rng(number).integers(0, 255, (32, 32), dtype=np.uint8)
    client.put_object(Bucket="xrays", Key=f"new/images/{number}.png", Body=cv2.imencode(".png", pixels)[1].tobytes())
    if labelled:
        client.put_object(Bucket="xrays", Key=f"new/labels/{number}.txt", Body=b"0 0.5 0.5 0.2 0.2\n")


def files(state: Path) -> dict[str, int]:
    """Every file of the copy, and when it was written."""
    copy = state / "incoming"
    found = [path for path in copy.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(copy)): path.stat().st_mtime_ns for path in found}


def test_a_prefix_of_a_bucket_is_watched_like_a_folder(bucket: Any, tmp_path: Path) -> None:
    data = tmp_path / "data.yaml"
    data.write_text("path: s3://xrays/new\ntrain: images\nnames: [Mass]\n")
    with pytest.raises(DataError, match="holds no object"):
        describe_incoming(data, tmp_path)
    drop(bucket, 1)
    drop(bucket, 2, labelled=False)
    bucket.put_object(Bucket="xrays", Key="new/report.pdf", Body=b"about a patient")
    description = describe_incoming(data, tmp_path)
    assert description.splits == {"train": (tmp_path / "incoming" / "images",)}
    before = files(tmp_path)
    assert set(before) == {"images/1.png", "images/2.png", "labels/1.txt"}

    drop(bucket, 3)
    bucket.delete_object(Bucket="xrays", Key="new/images/2.png")
    bucket.put_object(Bucket="xrays", Key="new/labels/1.txt", Body=b"0 0.4 0.4 0.2 0.2\n")
    describe_incoming(data, tmp_path)
    after = files(tmp_path)
    assert set(after) == {"images/1.png", "labels/1.txt", "images/3.png", "labels/3.txt"}
    assert after["images/1.png"] == before["images/1.png"]  # not fetched again
    assert (tmp_path / "incoming" / "labels" / "1.txt").read_text() == "0 0.4 0.4 0.2 0.2\n"


def test_names_that_lead_out_of_the_copy_are_refused(bucket: Any, tmp_path: Path) -> None:
    data = tmp_path / "data.yaml"
    data.write_text("path: s3://xrays/new\ntrain: images\nnames: [Mass]\n")
    bucket.put_object(Bucket="xrays", Key="new/images/../../../outside.txt", Body=b"x")
    with pytest.raises(DataError, match="names that cannot be files of a folder"):
        describe_incoming(data, tmp_path)
    assert not (tmp_path.parent / "outside.txt").exists()
