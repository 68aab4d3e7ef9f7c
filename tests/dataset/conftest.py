"""A small data set that is right, for tests that then spoil one thing."""

from pathlib import Path

import cv2
import numpy as np
import pytest


class SmallDataset:
    """Three splits of two 32 px PNGs each, two classes, a box on every image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.yaml = root / "data.yaml"
        root.mkdir()
        self.describe("train: images/train\nval: images/val\ntest: images/test\nnames: [Nodule, Effusion]\n")
        for number, split in enumerate(("train", "val", "test")):
            for index in range(2):
                self.add(f"{split}/p{number}_{index}", f"{index} 0.5 0.5 0.25 0.5\n", seed=10 * number + index)

    def describe(self, text: str) -> None:
        self.yaml.write_text(text)

    def add(self, name: str, label: str | None, *, seed: int, dtype: type = np.uint8) -> Path:
        pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (32, 40), dtype=dtype)
        image = self.image(name)
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), pixels)
        self.label(name).parent.mkdir(parents=True, exist_ok=True)
        if label is not None:
            self.label(name).write_text(label)
        return image

    def image(self, name: str) -> Path:
        return self.root / "images" / f"{name}.png"

    def label(self, name: str) -> Path:
        return self.root / "labels" / f"{name}.txt"


@pytest.fixture
def dataset(tmp_path: Path) -> SmallDataset:
    return SmallDataset(tmp_path / "data")
