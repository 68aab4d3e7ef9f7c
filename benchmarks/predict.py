"""Reading a folder, this project against Ultralytics: ``python benchmarks/predict.py [MODEL.pt MODEL.onnx FOLDER]``.

The same X-rays (1,000 by default; fewer are copied until there are enough) are read by ``python -m ray_jobs.predict``
with the ONNX file and by ``yolo predict`` with the PyTorch file it came from, in turns, each as a command of its own
from start to end, both writing an annotated picture for each X-ray. Without a model it trains one on phantoms and
reads those. With ``--gpu`` both read with the PyTorch file on the first GPU. The result, in images/s and with what both
found, goes to benchmarks/results/predict.json or predict_gpu.json.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from commands import draw_phantoms, run, train
from comparison import Comparison, in_turns, show
from gpu_busy import GpuBusy

AIM = 3.0
# The command ``yolo``, which draws and does not keep all results: Ultralytics knows it by its name.
YOLO = "import sys; sys.argv[0] = 'yolo'; from ultralytics.cfg import entrypoint; entrypoint()"
THRESHOLD = 0.02  # given to both: a detector that was trained for two minutes is sure of little


def gather(source: Path, count: int, folder: Path) -> list[Path]:
    """Copies of ``count`` images in one folder."""
    images = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    assert images, f"{source}: holds no images"
    chosen = [image for image, _ in zip(cycle(images), range(count), strict=False)]
    return [Path(shutil.copy(image, folder / f"{number:05d}{image.suffix}")) for number, image in enumerate(chosen)]


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds from start to end, and what was printed."""
    quiet = {"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": str(folder), "YOLO_AUTOINSTALL": "false"}
    started = time.perf_counter()
    said = run(command, folder, **quiet)
    return time.perf_counter() - started, said


def a_model(folder: Path) -> tuple[Path, Path]:
    """A detector that finds something, as .pt and .onnx for 512 px: trained for two minutes on phantoms."""
    print("  training a detector to read with", flush=True)
    settings = {"epochs": 10, "img_size": 256, "batch_size": 8, "scale": 0.9, "close_mosaic": 0, "device": "cpu"}
    weights = train(draw_phantoms(folder / "phantoms", train=160), folder, **settings) / "weights"
    names = names_of(weights / "best.onnx")
    code = "import sys, pathlib; from ray_jobs.detector.export import export_onnx; "
    code += "export_onnx(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), names=sys.argv[3:], image_size=512)"
    run([sys.executable, "-c", code, str(weights / "best.pt"), str(folder / "best.onnx"), *names])
    return weights / "best.pt", folder / "best.onnx"


def names_of(onnx: Path) -> tuple[str, ...]:
    """The classes of a model."""
    from ray_jobs.reading.reader import Reader

    return tuple(Reader(onnx).names)


def same_findings(ours: Path, theirs: Path, names: list[str]) -> dict[str, int]:
    """How many findings of either have one of the other: the same class, and edges within a hundredth of the size."""
    mine = matched = found = 0
    for text in ours.read_text().splitlines():
        line = json.loads(text)
        label = theirs / f"{Path(line['file']).stem}.txt"
        rows = [row.split() for row in label.read_text().splitlines()] if label.is_file() else []
        boxes = []
        for name, x, y, width, height, _ in rows:
            cx, cy, w, h = (float(value) for value in (x, y, width, height))
            boxes.append((names[int(name)], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]))
        mine, found = mine + len(line["findings"]), found + len(boxes)
        for finding in line["findings"]:
            size = (line["width"], line["height"]) * 2
            edges = [edge / side for edge, side in zip(finding["box"], size, strict=True)]
            for box in boxes:
                apart = max(abs(here - there) for here, there in zip(edges, box[1], strict=True))
                if box[0] == finding["label"] and apart < 0.01:
                    boxes.remove(box)
                    matched += 1
                    break
    return {"ours": mine, "peer": found, "in_both": matched}


def main() -> None:
    """Run both in turns, show, save."""
    options = _parse()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pt, onnx = (options.pt, options.onnx) if options.folder else a_model(work)
        (work / "images").mkdir()
        gather(options.folder or work / "phantoms" / "images", options.images, work / "images")
        comparison = read_in_turns(pt.resolve(), onnx.resolve(), options.gpu, options.images, options.repeats, work)
    comparison.save()
    show([comparison.as_dict()])
    print(", ".join(f"{name}: {value}" for name, value in comparison.details.items()))


def read_in_turns(pt: Path, onnx: Path, gpu: bool, images: int, repeats: int, work: Path) -> Comparison:
    """Read ``work/images`` with both; images/s from command to end."""
    from ray_jobs.detector.evaluation import model_facts
    from ray_jobs.reading.reader import Reader

    names, size = model_facts(pt) if gpu else (Reader(onnx).names, Reader(onnx).image_size)
    shares: list[float | None] = []

    def ours(turn: int) -> float:
        command = [sys.executable, "-m", "ray_jobs.predict", str(work / "images"), f"--threshold={THRESHOLD}"]
        began = time.time()
        with GpuBusy() as busy:
            seconds, said = timed([*command, f"--model={pt if gpu else onnx}", f"--out={work / f'ours{turn}'}"], work)
        (work / "ours.jsonl").write_text(said)
        shares.append(busy.between(began, time.time()))
        return images / seconds

    def peer(turn: int) -> float:
        command = [sys.executable, "-c", YOLO, "predict"]
        command += [f"model={pt}", f"source={work / 'images'}", f"device={0 if gpu else 'cpu'}", "verbose=False"]
        command += [f"imgsz={size}", f"conf={THRESHOLD}", "save_txt=True", "save_conf=True"]
        seconds, _ = timed([*command, f"project={work}", f"name=peer{turn}"], work)
        return images / seconds

    speeds = in_turns(repeats, ours, peer)
    found = same_findings(work / "ours.jsonl", work / f"peer{repeats - 1}" / "labels", list(names))
    details: dict[str, Any] = {"findings": found}
    if gpu:
        known = [share for share in shares if share is not None]
        details["share of the time in which our GPU was busy"] = statistics.median(known) if known else None
    note = f"{images} X-rays at {size} px, from command to end"
    name = "predict_gpu" if gpu else "predict"
    return Comparison(name, "images/s", *speeds, AIM, more=True, note=note, details=details)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pt", type=Path, nargs="?")
    parser.add_argument("onnx", type=Path, nargs="?")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--gpu", action="store_true", help="read with the PyTorch file on the first GPU")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.pt and not options.folder:
        parser.error("give MODEL.pt, MODEL.onnx and FOLDER, or nothing")
    return options


if __name__ == "__main__":
    main()
