"""What a person reads at the end of a run."""

from pathlib import Path

import pytest

from ray_jobs.flows.summary import MOST_CLASSES, print_summary

SCREEN = (40, 100)  # lines and columns


def summary(classes: int) -> dict:
    figures = {"boxes": 5, "map50": 0.5, "map50_95": 0.25, "precision": 0.75, "recall": None, "f1": 0.6}
    measured = figures | {
        "per_class": {f"finding {number}": figures for number in range(classes)},
        "map50_ci": [0.4, 0.6],
        "map50_95_ci": None,
        "ci": {"resamples": 1000, "drawn": 19, "over": "patients"},
        "froc": {"sensitivity": {"0.125": 0.1, "0.5": 0.3, "1": 0.4, "4": 0.6}},
        "image_auc": 0.8,
    }
    return {
        "run_name": "first",
        "test": measured,
        "epochs_run": 3,
        "best_epoch": 2,
        "world_size": 2,
        "images_per_second": 12.0,
        "timings": {"check": 1.0, "train": 60.0, "total": 61.0},
        "registry": {"name": "xray-detector", "version": "1", "alias": "challenger"},
        "tracking": {"pending": 4, "open_with": "mlflow server", "url": None},
        "onnx": {"map50_difference": 0.0},
    }


@pytest.mark.parametrize("classes", [1, 15, 80])
def test_it_fits_a_screen(classes: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines, columns = SCREEN
    monkeypatch.setenv("COLUMNS", str(columns))
    print_summary(summary(classes), Path("runs/first"))
    said = capsys.readouterr().out.splitlines()
    assert len(said) <= lines
    assert sum("finding " in line for line in said) == min(classes, MOST_CLASSES)
    assert [line.strip(" │") for line in said if "more" in line][:1] == [f"and {classes - 20} more"] * (classes > 20)
    assert any(line.startswith("95 % intervals: mAP50 0.400 to 0.600 (1000 draws of 19 patients)") for line in said)
    assert "registered  xray-detector version 1 @challenger" in said
