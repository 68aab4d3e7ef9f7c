"""One model on one or more ranks, in plain processes without Ray, on real X-rays."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from small_detector import draw_picture, small_detector

from ray_jobs.dataset.check import check_dataset
from ray_jobs.dataset.description import read_description
from ray_jobs.dataset.index import DatasetIndex

SCRIPT = Path(__file__).with_name("train_one_rank.py")
SMALL = ["epochs=3", "img_size=96", "batch_size=8", "close_mosaic=1", "nbs=20"]  # nbs: gradients wait between epochs


@pytest.fixture(scope="module")
def index(xrays_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "index.npz"
    check_dataset(read_description(xrays_mini / "data.yaml"), show_progress=False).index.save(path)
    return path


def train(index: Path, out: Path, *arguments: str, world_size: int = 1) -> list[list[dict]]:
    """Train in ``world_size`` processes; what each rank reported after each epoch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out.mkdir(parents=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ranks = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(world_size), str(port), index, out, *SMALL, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        for process in ranks:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
    finally:
        for process in ranks:  # where one failed, the others wait for it
            process.kill()
            process.communicate()
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(world_size)]


@pytest.fixture(scope="module")
def alone(index: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """One undisturbed worker: its folder and what it reported."""
    out = tmp_path_factory.mktemp("alone") / "run"
    return out, train(index, out)[0]


@pytest.mark.slow
def test_two_ranks_train_the_model_that_one_would(index: Path, tmp_path: Path, alone: tuple[Path, list[dict]]) -> None:
    first, second = train(index, tmp_path / "run", world_size=2)
    assert [epoch["digest"] for epoch in first] == [epoch["digest"] for epoch in second]
    for name in ("train/box_loss", "train/cls_loss", "train/dfl_loss"):
        assert first[0][name] == second[0][name]  # the mean over all ranks
        assert first[0][name] == pytest.approx(alone[1][0][name], rel=0.05)  # batch norm sees half a batch
    assert [epoch["last"] for epoch in first] == [False, False, True]
    assert not (tmp_path / "run" / "work1" / "weights" / "best.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [0, 2])
def test_an_image_is_decoded_once_and_then_comes_from_the_cache(
    index: Path, tmp_path: Path, alone: tuple[Path, list[dict]], loaders: int
) -> None:
    """Counted through loader processes too; mosaics read four images for one until the last epoch.

    Two processes that ask for the same image at the same moment both decode it.
    """
    told = train(index, tmp_path / "run", "--loaders", str(loaders))[0] if loaders else alone[1]
    images = len(DatasetIndex.load(index).splits["train"])
    assert images <= sum(epoch["images_decoded"] for epoch in told) <= images + loaders * images // 10
    assert told[0]["images_decoded"] > told[-1]["images_decoded"] == 0
    assert [told[-1]["images_cached"], told[1]["images_cached"] > images] == [images, True]


@pytest.mark.slow
@pytest.mark.parametrize("stopped_after", [1, 2])
def test_a_resumed_run_ends_as_the_undisturbed_one(
    index: Path, tmp_path: Path, alone: tuple[Path, list[dict]], stopped_after: int
) -> None:
    folder, undisturbed = alone
    resumed = train(index, tmp_path / "run", "--resume", str(folder / f"epoch_{stopped_after}"))[0]
    assert [epoch["epoch"] for epoch in resumed] == list(range(stopped_after + 1, 4))
    assert resumed[-1]["digest"] == undisturbed[-1]["digest"]
    rows = [(tmp_path / "run" / "work0" / "results.csv").read_text(), (folder / "work0" / "results.csv").read_text()]
    without_time = [[row.split(",")[:1] + row.split(",")[2:] for row in text.splitlines()] for text in rows]
    assert without_time[0] == without_time[1]


@pytest.mark.slow
def test_a_carried_state_brings_weights_but_not_the_learning_rate(
    index: Path, tmp_path: Path, alone: tuple[Path, list[dict]]
) -> None:
    standing_still = ["optimizer=AdamW", "lr0=1e-12", "lrf=1.0", "warmup_epochs=0", "epochs=2"]
    given = ["--resume", str(alone[0] / "epoch_1"), "--carried"]
    carried = train(index, tmp_path / "run", *given, *standing_still)[0]
    assert [epoch["epoch"] for epoch in carried] == [2]
    assert carried[0]["lr/pg0"] == pytest.approx(1e-12)
    donor, moved, own = (
        torch.load(folder / "state.pt", weights_only=True)["model"]
        for folder in (alone[0] / "epoch_1", alone[0] / "epoch_2", tmp_path / "run" / "epoch_2")
    )
    trained = [name for name in donor if name.endswith((".weight", ".bias"))]
    assert max(float((own[name] - donor[name]).abs().max()) for name in trained) < 1e-9
    assert max(float((moved[name] - donor[name]).abs().max()) for name in trained) > 1e-4
    assert not (tmp_path / "run" / "work0" / "weights" / "last.pt").exists(), "a trial keeps no weights"


@pytest.mark.slow
def test_the_weights_load_in_plain_ultralytics(alone: tuple[Path, list[dict]]) -> None:
    from ray_jobs.detector.weights import load_model

    folder, _ = alone
    assert {"best.pt", "last.pt", "state.pt", "results.csv"} <= {file.name for file in (folder / "epoch_3").iterdir()}
    model = load_model(folder / "epoch_3" / "best.pt")
    assert list(model.names.values())[:2] == ["Atelectasis", "Cardiomegaly"]

    from ultralytics import YOLO

    assert len(YOLO(folder / "epoch_3" / "best.pt").names) == 8


@pytest.mark.slow
def test_training_starts_from_given_weights_in_bf16(
    index: Path, tmp_path: Path, alone: tuple[Path, list[dict]]
) -> None:
    """Steps too small to see leave the weights as they were given; bf16 on a CPU is what Ultralytics itself refuses."""
    from ray_jobs.detector.training_state import load_state
    from ray_jobs.detector.weights import load_model

    given = alone[0] / "epoch_3" / "last.pt"
    standing = ["optimizer=SGD", "lr0=1e-8", "warmup_bias_lr=0.0", "epochs=1", "precision=bf16"]
    (epoch,) = train(index, tmp_path / "run", "--weights", str(given), *standing)[0]
    assert 0 < epoch["train/cls_loss"] < 100
    after = load_state(tmp_path / "run" / "epoch_1" / "state.pt")["model"]
    for name, value in load_model(given).named_parameters():
        assert torch.allclose(after[name], value, atol=1e-5), name


@pytest.mark.slow
def test_early_stopping_ends_all_ranks(tmp_path: Path) -> None:
    """A detector that cannot improve any more: steps too small to see, and a score above 0 from the first epoch on."""
    data = tmp_path / "discs"
    for number in range(24):
        split = "val" if number % 3 == 0 else "train"
        pixels, boxes = draw_picture(number)
        for kind in ("images", "labels"):
            (data / kind / split).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(data / "images" / split / f"{number}.png"), pixels)
        rows = "\n".join(" ".join([str(int(row[0])), *map(str, row[1:])]) for row in boxes)
        (data / "labels" / split / f"{number}.txt").write_text(rows)
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [Disc, Square]\n")
    discs = tmp_path / "discs.npz"
    check_dataset(read_description(data / "data.yaml"), show_progress=False).index.save(discs)

    standing = ["optimizer=SGD", "lr0=1e-8", "warmup_bias_lr=0.0", "epochs=8", "patience=2", "close_mosaic=8"]
    weights = small_detector() / "best.pt"
    ranks = train(discs, tmp_path / "run", "--weights", str(weights), *standing, world_size=2)
    assert len(ranks[0]) == len(ranks[1]) < 8
    assert [epoch["last"] for epoch in ranks[0]][-2:] == [False, True]
    assert max(epoch["val/fitness"] for epoch in ranks[0]) > 0


def test_a_missing_training_state_is_said(tmp_path: Path) -> None:
    from ray_jobs.detector.training_state import load_state
    from ray_jobs.errors import WeightsError

    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(WeightsError, match=r"state\.pt: is no training state"):
        load_state(tmp_path / "state.pt")
