"""Many X-rays at once: threads, a cluster and a bucket give what reading one by one gives."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from small_detector import draw_picture, small_detector

from ray_jobs.flows.ray_cluster import connect
from ray_jobs.predict import main
from ray_jobs.serving.chunk import Reading
from ray_jobs.serving.detector import find_detector
from ray_jobs.serving.folder import FEWEST_FOR_A_CLUSTER, choose, load_here, read_here, read_on_cluster
from ray_jobs.serving.pictures import find_pictures
from ray_jobs.settings import load_config_with_defaults

MODEL = "best.onnx"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(40):
        cv2.imwrite(str(folder / f"{seed:02d}.png"), draw_picture(seed)[0])
    (folder / "07.png").write_text("not a picture")
    return folder


def as_read(parts: Iterator[list[Reading]]) -> dict[str, Reading]:
    readings = [reading for part in parts for reading in part]
    return {reading.source: reading for reading in sorted(readings, key=lambda one: one.source)}


def assert_same(one: dict[str, Reading], other: dict[str, Reading], atol: float) -> None:
    assert list(one) == list(other)
    for source, reading in one.items():
        there = other[source]
        if reading.line is None:
            assert there.problem == reading.problem
            continue
        assert there.line is not None
        pairs = list(zip(reading.line["findings"], there.line["findings"], strict=True))
        assert [a["label"] for a, _ in pairs] == [b["label"] for _, b in pairs]
        for a, b in pairs:
            assert a["box"] == pytest.approx(b["box"], abs=200 * atol)
            assert a["score"] == pytest.approx(b["score"], abs=atol)


def test_pytorch_and_onnx_find_the_same(scans: Path) -> None:
    pictures = find_pictures([str(scans)])
    files = [find_detector(str(small_detector() / name)) for name in (MODEL, "best.pt")]
    found = [as_read(read_here(pictures, load_here(file, len(pictures)), False)) for file in files]
    assert sum(len(one.line["findings"]) for one in found[0].values() if one.line) > 30
    assert_same(*found, atol=0.002)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # of its own settings
def test_a_cluster_reads_what_threads_read(scans: Path) -> None:
    connect(load_config_with_defaults(None, ["device=cpu"]))
    import ray

    try:
        pictures = find_pictures([str(scans)])
        file = find_detector(str(small_detector() / MODEL))
        there, here = (
            as_read(read_on_cluster(pictures, file, True)),
            as_read(read_here(pictures, load_here(file, 40), True)),
        )
    finally:
        ray.shutdown()
    assert_same(here, there, atol=0.0005)
    assert "is no image" in str(there[str(scans / "07.png")].problem)
    assert all(one.drawing and one.drawing.startswith(b"\x89PNG") for one in there.values() if one.line)


def test_a_cluster_is_used_where_there_is_one_and_enough_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not choose(100_000, None)
    assert choose(FEWEST_FOR_A_CLUSTER, "auto")
    assert not choose(FEWEST_FOR_A_CLUSTER - 1, "auto")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose(FEWEST_FOR_A_CLUSTER, None)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket at moto's S3 server."""
    from ray_jobs.storage.objects import _client
    from ray_jobs.storage.s3 import S3Storage

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    address = next(line.split()[-1] for line in process.stderr if "Running on" in line)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(f"{address}/moto-api/reset", data=b"").close()
    _client.cache_clear()
    S3Storage("scans", "")._client.create_bucket(Bucket="scans")
    yield "scans"
    _client.cache_clear()
    process.terminate()
    process.wait(10)
    process.stderr.close()


def test_a_bucket_is_read(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ray_jobs.storage.objects import _client

    disc = cv2.imencode(".png", draw_picture(1, [(0, 80, 70, 25)])[0])[1].tobytes()
    for key in ("ward/a/x.png", "ward/b/x.png", "ward/notes.txt", "ward2/y.png", "ward/../../escape.png"):
        _client().put_object(Bucket=bucket, Key=key, Body=disc)
    _client().put_object(Bucket=bucket, Key="ward/bad.png", Body=b"not a picture")
    out = tmp_path / "out"
    model = str(small_detector() / MODEL)
    assert main([f"s3://{bucket}/ward", "--model", model, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["file"] for line in lines] == [
        "s3://scans/ward/../../escape.png",
        "s3://scans/ward/a/x.png",
        "s3://scans/ward/b/x.png",
    ]
    assert all([one["label"] for one in line["findings"]] == ["Disc"] for line in lines)
    assert "s3://scans/ward/bad.png: is no image" in printed.err
    assert {file.relative_to(out).as_posix() for file in out.rglob("*.png")} == {"a/x.png", "b/x.png", "escape.png"}
    assert main([f"s3://{bucket}/ward2/y.png", "--model", model]) == 0
