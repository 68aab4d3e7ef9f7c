"""The job that checks a data set, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.check_data import main
from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.dataset.phantom import draw_phantoms
from ray_jobs.errors import DataError, StorageError


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    return draw_phantoms(tmp_path / "phantoms", train=8, val=4, test=4, size=64)


def test_a_right_data_set_gives_counts_report_and_pictures(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--data", str(phantoms), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert f"fingerprint {report['fingerprint']}" in printed
    assert "Cardiomegaly" in printed
    assert report["counts"]["train"]["images"] == 8
    assert sorted(path.name for path in out.glob("samples_*")) == [f"samples_{s}.jpg" for s in ("test", "train", "val")]
    assert DatasetIndex.load(out / "index.npz").fingerprint == report["fingerprint"]


def test_errors_are_raised_after_the_report_is_written(phantoms: Path, tmp_path: Path) -> None:
    next((phantoms.parent / "labels/train").iterdir()).write_text("7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match="label_class"):
        main(["--data", str(phantoms), "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out/report.json").read_text())["errors"]["label_class"]["count"] == 1
    assert not (tmp_path / "out/index.npz").exists()


def test_kinds_can_be_allowed(phantoms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = ["--patient-id-pattern", r"(\d{5})"]
    with pytest.raises(DataError, match="shared_patients"):
        main(["--data", str(phantoms), *pattern])
    assert main(["--data", str(phantoms), *pattern, "--allow", "shared_patients"]) == 0
    assert "warning: shared_patients (4, allowed)" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_to_is_refused(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written to"):
        main(["--data", str(phantoms), "--out", str(tmp_path / "file" / "out")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data.yaml: no such file"),
        ("train: images\nnames: [Mass\n", "not valid YAML"),
        ("train: .\nval: .\nnc: 7\nnames: [Mass, Nodule]\n", "nc: says 7, but names lists 2"),
        ("train: .\nval: .\nnames: [Mass]\n", "empty_splits (2)"),
    ],
)
def test_bad_input_is_exit_code_2_without_a_traceback(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "data.yaml").write_text(content)
    command = [sys.executable, "-m", "ray_jobs.check_data", "--data", str(tmp_path / "data.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_data_set_in_a_bucket_is_checked_like_any_other(
    phantoms: Path, tmp_path: Path, empty_s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=empty_s3, region_name="us-east-1")
    client.create_bucket(Bucket="xrays")
    for file in (path for path in phantoms.parent.rglob("*") if path.is_file()):
        client.upload_file(str(file), "xrays", f"chest/{file.relative_to(phantoms.parent)}")
    monkeypatch.setenv("XRAY_DATA_CACHE", str(tmp_path / "cache"))
    assert main(["--data", str(phantoms)]) == 0
    fingerprint = capsys.readouterr().out.split("fingerprint ")[1].split()[0]
    assert main(["--data", "s3://xrays/chest/data.yaml"]) == 0
    said = capsys.readouterr().out
    assert f"fingerprint {fingerprint}" in said
    assert f"from s3://xrays/chest to {tmp_path / 'cache'}" in said
