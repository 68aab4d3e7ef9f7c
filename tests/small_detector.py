"""A real detector for tests: yolo12n, trained for seconds on drawn pictures until it boxes what was drawn.

Pictures are dark noise with bright discs and gray squares, 160 x 160 px. The training loop is ten lines of PyTorch, so
that it needs no data folder, no label cache and no trainer; the checkpoint has the form that Ultralytics writes.
"""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

NAMES = ("Disc", "Square")
SIZE = 96
PICTURE = 160


def draw_picture(seed: int, shapes: Sequence[tuple[int, int, int, int]] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A gray picture (160, 160) and its boxes, rows of class, centre x, centre y, width, height in 0..1.

    ``shapes`` are (class, centre x, centre y, radius) in pixels; drawn at random without it, none in every fifth.
    """
    random = np.random.default_rng(seed)
    pixels = random.normal(40, 8, (PICTURE, PICTURE)).clip(0, 255).astype(np.uint8)
    if shapes is None:
        count = 0 if seed % 5 == 4 else int(random.integers(1, 4))
        corners = random.permutation(4)[:count]
        shapes = [
            (
                int(random.integers(2)),
                int(40 + 80 * (corner % 2) + random.integers(-10, 11)),
                int(40 + 80 * (corner // 2) + random.integers(-10, 11)),
                int(random.integers(14, 26)),
            )
            for corner in corners
        ]
    boxes = []
    for label, x, y, radius in shapes:
        if label == 0:
            cv2.circle(pixels, (x, y), radius, 220, -1)
        else:
            cv2.rectangle(pixels, (x - radius, y - radius), (x + radius, y + radius), 130, -1)
        side = 2 * radius + 1
        boxes.append((label, (x + 0.5) / PICTURE, (y + 0.5) / PICTURE, side / PICTURE, side / PICTURE))
    return pixels, np.array(boxes, dtype=np.float32).reshape(-1, 5)


def train_small(
    pictures: Sequence[np.ndarray], boxes: Sequence[np.ndarray], names: Sequence[str], path: Path, steps: int
) -> None:
    """Fit yolo12n to square pictures at 96 px and write it to ``path`` as Ultralytics would."""
    from ray_jobs.detector.process import quiet_ultralytics

    quiet_ultralytics()
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    resized = np.stack([cv2.resize(picture, (SIZE, SIZE)) for picture in pictures])
    images = torch.from_numpy(resized).float()[:, None].repeat(1, 3, 1, 1) / 255
    model = DetectionModel("yolo12n.yaml", nc=len(names), verbose=False)
    model.names, model.args = dict(enumerate(names)), get_cfg(overrides={"imgsz": SIZE})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1  # so few steps must move the running statistics
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        chosen = np.random.default_rng(step).permutation(len(images))[:8]
        labels = [torch.from_numpy(boxes[number]) for number in chosen]
        batch = {
            "img": images[chosen],
            "cls": torch.cat([rows[:, :1] for rows in labels]),
            "bboxes": torch.cat([rows[:, 1:] for rows in labels]),
            "batch_idx": torch.cat([torch.full((len(rows),), float(at)) for at, rows in enumerate(labels)]),
        }
        loss, _ = model.loss(batch)
        optimizer.zero_grad()
        (sum(loss.values()) if isinstance(loss, dict) else loss.sum()).backward()
        optimizer.step()
        schedule.step()
    model.criterion = None
    arguments = {key: value for key, value in vars(model.args).items() if not key.startswith("_")}
    model.args = arguments
    torch.save({"model": model.half().eval(), "train_args": arguments, "epoch": -1}, path)


@functools.cache
def small_detector() -> Path:
    """A folder with best.pt and best.onnx of a detector of discs and squares, made once per process."""
    from ray_jobs.detector.export import export_onnx

    # Kept in a variable of the module, so that the folder goes when the process does.
    global _folder
    _folder = tempfile.TemporaryDirectory(prefix="small-detector-")
    folder = Path(_folder.name)
    drawn = [draw_picture(seed) for seed in range(40)]
    padded, none = np.full((PICTURE, PICTURE), 114, np.uint8), np.zeros((0, 5), np.float32)
    padded[:, 27:133] = 0  # what a black upright picture becomes: the gray padding is no square
    drawn += [(padded, none), (padded.T, none), (np.zeros_like(padded), none)]
    train_small([picture for picture, _ in drawn], [boxes for _, boxes in drawn], NAMES, folder / "best.pt", 60)
    export_onnx(folder / "best.pt", folder / "best.onnx", names=NAMES, image_size=SIZE)
    return folder


_folder: tempfile.TemporaryDirectory[str] | None = None
