"""Reading a folder, this project against Ultralytics: ``python benchmarks/predict.py MODEL.pt MODEL.onnx FOLDER``.

The same X-rays (1,000 by default; fewer are copied until there are enough) are read by ``python -m ray_jobs.predict``
with the ONNX file and by ``yolo predict`` with the PyTorch file it came from, in turns, each as a command of its own
from start to end, both writing an annotated picture for each X-ray. Prints images/s of both and their ratio, compares
what they found, and writes it to benchmarks/results/predict.json.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

AIM = 3.0
RESULT = Path(__file__).parent / "results" / "predict.json"
THRESHOLD = 0.25  # Ultralytics' default, given to both


def gather(source: Path, count: int, folder: Path) -> list[Path]:
    """Copies of ``count`` images in one folder."""
    images = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    assert images, f"{source}: holds no images"
    chosen = [image for image, _ in zip(cycle(images), range(count), strict=False)]
    return [Path(shutil.copy(image, folder / f"{number:05d}{image.suffix}")) for number, image in enumerate(chosen)]


def timed(command: list[str], folder: Path, log: Path) -> tuple[float, float, float]:
    """Seconds from start to end, seconds of CPU, and the peak of memory so far in MB of any command's process."""
    environment = os.environ | {"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": str(folder), "YOLO_AUTOINSTALL": "false"}
    environment.pop("OMP_NUM_THREADS", None)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("w") as output:
        subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.DEVNULL, check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, after.ru_maxrss / 1024


def same_findings(ours: Path, theirs: Path, names: list[str]) -> dict[str, Any]:
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
    """Run both in turns, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pt", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    from ray_jobs.reading.reader import Reader

    reader = Reader(options.onnx)
    yolo = Path(sys.executable).with_name("yolo")
    ours: list[float] = []
    peer: list[float] = []
    notes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "images").mkdir()
        gather(options.folder, options.images, work / "images")
        for turn in range(options.turns):
            command = [sys.executable, "-m", "ray_jobs.predict", str(work / "images"), f"--threshold={THRESHOLD}"]
            command += [f"--model={options.onnx.resolve()}", f"--out={work / f'ours{turn}'}"]
            seconds, cpu, peak = timed(command, work, work / "ours.jsonl")
            ours.append(options.images / seconds)
            notes.setdefault("our_peak_mb", round(peak))
            notes.setdefault("our_cpu_s", []).append(round(cpu, 1))
            command = [str(yolo), "predict", f"model={options.pt.resolve()}", f"source={work / 'images'}"]
            command += [f"imgsz={reader.image_size}", f"conf={THRESHOLD}", "device=cpu", "verbose=False"]
            command += ["save_txt=True", "save_conf=True", f"project={work}", f"name=peer{turn}"]
            seconds, cpu, _ = timed(command, work, work / "peer.log")
            peer.append(options.images / seconds)
            notes.setdefault("peer_cpu_s", []).append(round(cpu, 1))
            print(f"turn {turn + 1}: {ours[-1]:.1f} against {peer[-1]:.1f} images/s", flush=True)
        found = same_findings(work / "ours.jsonl", work / f"peer{options.turns - 1}" / "labels", list(reader.names))
    ratio = statistics.median(ours) / statistics.median(peer)
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    record = {
        "name": f"predict: {options.images} X-rays at {reader.image_size} px, images/s from command to end, CPU",
        "ours": round(statistics.median(ours), 1),
        "peer": round(statistics.median(peer), 1),
        "ratio": round(ratio, 2),
        "aim": AIM,
        "met": ratio >= AIM,
        "spread": {"turns": options.turns, "ratio_min": round(min(ratios), 2), "ratio_max": round(max(ratios), 2)},
        "findings": found,
        **notes,
        "load_average": os.getloadavg()[0],
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": {name: version(name) for name in ("ultralytics", "torch", "onnxruntime", "opencv-python")},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
