"""What a data set costs as it grows: ``python benchmarks/growth.py [--images 1000 10000 100000]``.

Draws that many gray pictures of 64 px, each different, with a box each, and measures in a process of its own for each
size: the check (which reads and hashes every file, and ends with the fingerprint), writing and reading the index,
filling the pixel cache, and the batches of an epoch with a mosaic (without the network, whose cost per image does not
know how many there are). Memory is what the process itself holds, cached pixels in shared files not counted.
Processor time is what is compared: it does not know what else the machine does.

Small pictures make the cost of a file visible, not that of its pixels. The aims: an image costs no more in the largest
data set than in the smallest, but for a quarter, and the process no more memory, but for a tenth.
``benchmarks/results/growth.json`` has every stage.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from commands import run
from comparison import Comparison, show

SIZE, BATCH, VALIDATION = 64, 64, 10  # pixels, images, every tenth image
STAGES = ("check", "index", "cache", "epoch")


def main() -> None:
    """Draw and measure each size, show, save."""
    options = _parse()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    rows = []
    for images in sorted(options.images):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            draw(Path(folder), images)
            print(f"  {images} images drawn in {time.perf_counter() - began:.0f} s", flush=True)
            said = run([sys.executable, __file__, "--measure", folder], YOLO_CONFIG_DIR=folder, YOLO_OFFLINE="1")
            rows.append({"images": images, **json.loads(said.splitlines()[-1])})
        stages = ", ".join(f"{stage} {rows[-1][stage]:.2f} s ({rows[-1][f'{stage}_cpu']:.2f})" for stage in STAGES)
        print(f"  {images} images: {stages}, of processor time in brackets; {rows[-1]['memory_mb']:.0f} MB", flush=True)
        comparisons = [grown(rows), held(rows)]
        for comparison in comparisons:
            comparison.save()
    show([comparison.as_dict() for comparison in comparisons])


def grown(rows: list[dict[str, float]]) -> Comparison:
    """What an image costs in the largest data set so far, against the smallest."""
    each = [1000 * sum(row[f"{stage}_cpu"] for stage in STAGES) / row["images"] for row in rows]
    note = f"all stages, of processor time, at {rows[-1]['images']} images (ours) and at {rows[0]['images']} (peer)"
    return Comparison("growth", "ms/image", each[-1:], each[:1], 1.25, note=note, details={"rows": rows})


def held(rows: list[dict[str, float]]) -> Comparison:
    """The most memory that the process held with the largest data set so far, against the smallest."""
    memory = [row["memory_mb"] for row in rows]
    note = f"at most, at {rows[-1]['images']} images (ours) and at {rows[0]['images']} (peer)"
    return Comparison("growth_memory", "MB", memory[-1:], memory[:1], 1.1, note=note)


def draw(folder: Path, images: int) -> None:
    """Smooth noise; every tenth picture is for validation."""
    import cv2
    import numpy as np

    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)

    def one(number: int) -> None:
        split = "val" if number % VALIDATION == 0 else "train"
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        picture = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / split / f"{number:06d}.png"), picture)
        (folder / "labels" / split / f"{number:06d}.txt").write_text("0 0.5 0.5 0.2 0.2\n")

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(images), chunksize=256))
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [Nodule]\n")


def measure(folder: Path) -> dict[str, float]:
    """Seconds and processor seconds of each stage, and the memory in MB that the process held at the end of any."""
    from ray_jobs.detector.process import quiet_ultralytics

    quiet_ultralytics()
    import torch
    from ultralytics.cfg import get_cfg

    from ray_jobs.dataset.check import check_dataset
    from ray_jobs.dataset.description import read_description
    from ray_jobs.dataset.index import DatasetIndex
    from ray_jobs.detector.loader import SeededLoader
    from ray_jobs.detector.sampling import EpochBatchSampler
    from ray_jobs.detector.xray_dataset import XrayDataset

    torch.set_num_threads(1)  # two that wait for each other on a busy machine would count as work
    figures: dict[str, float] = {"memory_mb": 0.0, "memory_before_mb": _own_memory_mb()}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started, before = time.perf_counter(), time.process_time()
        yield
        figures[name] = time.perf_counter() - started
        figures[f"{name}_cpu"] = time.process_time() - before
        figures["memory_mb"] = max(figures["memory_mb"], _own_memory_mb())

    with stage("check"):
        report = check_dataset(read_description(folder / "data.yaml"), show_progress=False)
        report.raise_for_errors()
    with stage("index"):
        report.index.save(folder / "index.npz")
        index = DatasetIndex.load(folder / "index.npz")
    figures["index_mb"] = (folder / "index.npz").stat().st_size / 1e6
    with stage("cache"):
        dataset = XrayDataset(
            index.splits["train"],
            img_path="train",
            imgsz=SIZE,
            batch_size=BATCH,
            augment=True,
            hyp=get_cfg(),
            rect=False,
            data={"names": {0: "Nodule"}, "nc": 1, "channels": 3},
            seed=0,
            cache_file=folder / "train.pixels",
        )
        for number in range(len(dataset)):
            dataset.load_image(number)
    with stage("epoch"):
        sampler = EpochBatchSampler(len(dataset), BATCH, seed=0)
        for _ in SeededLoader(dataset, sampler, workers=0, pin_memory=False):
            pass
    return figures


def _own_memory_mb() -> float:
    """What this process alone holds, without pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help="measure this one (used by this script)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
