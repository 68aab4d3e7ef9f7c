"""Whatever is wrong with the input of a training run is said in one clear message, exit code 2, and nothing is left."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ray_jobs import train
from ray_jobs.entry import run_job

PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture
def data(xrays_mini: Path, tmp_path: Path) -> Path:
    """A small copy of real X-rays, to be spoilt."""
    root = tmp_path / "data"
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for image in sorted((xrays_mini / "images" / split).iterdir())[-count:]:
            label = xrays_mini / "labels" / split / f"{image.stem}.txt"
            for file, kind in ((image, "images"), (label, "labels")):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, root / kind / split)
    shutil.copy(xrays_mini / "data.yaml", root / "data.yaml")
    return root


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run the job as its users do; its exit code and what it said on the way out. Nothing may be left behind."""

    def call(*arguments: object, output_dir: Path | None = None) -> tuple[int, str]:
        output = output_dir or tmp_path / "runs"
        always = ["device=cpu", "pretrained=false", "tracking.uri=none", f"output_dir={output}"]
        with pytest.raises(SystemExit) as left:
            run_job(train.main, [*always, *map(str, arguments)])
        said = capfd.readouterr().err
        assert "Traceback" not in said
        assert not (tmp_path / "runs").exists(), "a half-made run is left behind"
        assert isinstance(left.value.code, int)
        return left.value.code, said

    return call


def first_label(data: Path) -> Path:
    return next(file for file in sorted((data / "labels" / "train").iterdir()) if file.read_text().strip())


def change(data: Path, **values: object) -> None:
    description = yaml.safe_load((data / "data.yaml").read_text())
    (data / "data.yaml").write_text(yaml.safe_dump({**description, **values}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "config.yaml: no such file"),
        ("epochs: [1\nseed: 3\n", "config.yaml:2: not valid YAML"),
        ("epoch: 3\n", "config.yaml:1: epoch: unknown key; did you mean epochs?"),
        ("epochs: many\n", "config.yaml:1: epochs: must be a whole number, got 'many'"),
        ("lr0: 100.0\n", "config.yaml:1: lr0: must be at most 10"),
    ],
)
def test_settings(run, data: Path, tmp_path: Path, text: str | None, words: str) -> None:
    config = tmp_path / "config.yaml"
    if text is not None:
        config.write_text(text)
    code, said = run("--config", config, "--data", data / "data.yaml")
    assert (code, words in said) == (2, True), said


def test_missing_data_yaml(run, tmp_path: Path) -> None:
    code, said = run("--data", tmp_path / "nothing.yaml")
    assert (code, "nothing.yaml: no such file" in said) == (2, True), said


def test_no_data_at_all(run) -> None:
    code, said = run()
    assert (code, "give --data" in said) == (2, True), said


def test_class_count_and_names_disagree(run, data: Path) -> None:
    change(data, nc=7)
    code, said = run("--data", data / "data.yaml")
    assert (code, "nc" in said, "7" in said, "8" in said) == (2, True, True, True), said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.1", "label_columns"),
        ("0 nan 0.5 0.1 0.1", "label_numbers"),
        ("8 0.5 0.5 0.1 0.1", "label_class"),
        ("0 0.99 0.5 0.2 0.1", "label_box_outside"),
    ],
)
def test_labels(run, data: Path, line: str, words: str) -> None:
    label = first_label(data)
    label.write_text(label.read_text() + "\n" + line)
    code, said = run("--data", data / "data.yaml")
    assert (code, words in said, label.name in said) == (2, True, True), said


def test_a_truncated_png(run, data: Path) -> None:
    from PIL import Image

    image = sorted((data / "images" / "train").iterdir())[0]
    whole = image.with_suffix(".png")
    Image.open(image).save(whole)
    image.unlink()
    whole.write_bytes(whole.read_bytes()[:-2000])
    code, said = run("--data", data / "data.yaml")
    assert (code, whole.name in said, "unreadable_images" in said) == (2, True, True), said


def test_a_text_file_named_jpg(run, data: Path) -> None:
    (data / "images" / "train" / "notes.jpg").write_text("these are my notes")
    code, said = run("--data", data / "data.yaml")
    assert (code, "notes.jpg" in said) == (2, True), said


def test_an_empty_train_split(run, data: Path) -> None:
    shutil.rmtree(data / "images" / "train")
    (data / "images" / "train").mkdir()
    code, said = run("--data", data / "data.yaml")
    assert (code, "train" in said, "empty_splits" in said) == (2, True, True), said


def test_weights_that_are_a_web_page(run, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "yolo12n.pt"
    page.write_text("<!DOCTYPE html><html><body>404</body></html>")
    code, said = run("--data", data / "data.yaml", f"pretrained={page}")
    assert (code, "is an HTML page, not weights" in said) == (2, True), said


def test_gpus_that_are_not_there(run, data: Path) -> None:
    code, said = run("--data", data / "data.yaml", "device=[0]")
    assert (code, "device: [0]: this machine shows 0 GPU(s)" in said) == (2, True), said


def test_a_password_in_an_address_is_refused_and_not_shown(run, data: Path) -> None:
    code, said = run("--data", data / "data.yaml", "tracking.uri=https://me:hunter22@mlflow.example")
    assert (code, "set MLFLOW_TRACKING_USERNAME" in said, "hunter22" in said) == (2, True, False), said


def test_resume_takes_no_other_data(run, data: Path) -> None:
    code, said = run("--resume", "x", "--data", data / "data.yaml")
    assert (code, "leave out --data" in said) == (2, True), said


def test_an_output_that_cannot_be_written(run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = run("--data", data / "data.yaml", output_dir=tmp_path / "file" / "runs")
    assert (code, "cannot be written to" in said) == (2, True), said


def test_an_object_store_that_does_not_answer(run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a missing bucket and refused keys say: test_storage.py."""
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    code, said = run("--data", data / "data.yaml", "storage.url=s3://xrays/checkpoints")
    assert (code, "s3://xrays/checkpoints: http://127.0.0.1:9 cannot be used" in said) == (2, True), said


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://none/set/data.yaml", "s3://none/set: the bucket 'none' does not exist at http://"),
        ("s3://xrays/none/data.yaml", "s3://xrays/none: holds no object; correct the bucket or the prefix"),
        ("s3://xrays/set/data.yaml", "s3://xrays/set: holds no data.yaml; there are broken.yaml, images, labels"),
        ("s3://xrays/set/broken.yaml", "s3://xrays/set/broken.yaml:1: not valid YAML"),
        ("s3://xrays/odd", "names that cannot be files of a folder: '../../etc/passwd'"),
    ],
)
def test_a_data_set_in_a_bucket(
    run, data: Path, tmp_path: Path, empty_s3: str, monkeypatch: pytest.MonkeyPatch, address: str, words: str
) -> None:
    """What a wrong endpoint and refused keys say: storage/test_bucket_folder.py."""
    import boto3

    client = boto3.client("s3", endpoint_url=empty_s3, region_name="us-east-1")
    client.create_bucket(Bucket="xrays")
    for name in ("set/images/a.jpg", "set/labels/a.txt", "set/broken.yaml", "odd/../../etc/passwd"):
        client.put_object(Bucket="xrays", Key=name, Body=b"[")
    monkeypatch.setenv("XRAY_DATA_CACHE", str(tmp_path / "cache"))
    (data / "data.yaml").write_text(f"path: {address}\n")
    code, said = run("--data", address)
    assert (code, words in said) == (2, True), said
    assert not (tmp_path / "cache").exists()


def test_a_batch_that_workers_cannot_share(run, data: Path) -> None:
    code, said = run("--data", data / "data.yaml", "batch_size=3", "cluster.num_workers=2")
    assert (code, "3 cannot be shared evenly by 2 workers; use 2 or 4" in said) == (2, True), said


def test_a_finished_run_keeps_its_name(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from ray_jobs.flows.run_folder import RunFolder
    from ray_jobs.settings import Settings

    taken = RunFolder(tmp_path / "mine" / "a").claim(Settings(), "f" * 64)
    taken.write_state(status="finished")
    taken.release()
    with pytest.raises(SystemExit) as left:
        run_job(train.main, ["--data", str(data / "data.yaml"), "--run-name", "a", f"output_dir={tmp_path / 'mine'}"])
    assert left.value.code == 2
    assert "this run is finished; choose another run_name" in capfd.readouterr().err


def test_help_is_worth_reading(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run_job(train.main, ["--help"])
    said = capfd.readouterr().out
    assert left.value.code == 0
    assert all(word in said for word in ("--resume", "--dry-run", "batch_size=16", "summary.json"))


def test_a_job_starts_without_the_heavy_packages() -> None:
    import subprocess

    code = (
        "import sys, ray_jobs.train; print([m for m in ('torch', 'ultralytics', 'ray', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
