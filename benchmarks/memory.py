"""Memory for cached images, four processes on a node: ``python benchmarks/memory.py [--images 400] [--size 512]``.

Each process opens the data set and loads every image: ours from the pixel cache that all share, the peer's with
Ultralytics' ``cache=ram``. What the images add is read from the kernel (PSS in /proc/PID/smaps_rollup: a page counts in
equal parts for those who share it), and given in copies: one is every image once, as that side keeps it.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE, Popen

from commands import draw_phantoms, environment
from comparison import AtMost, in_turns, show

PROCESSES, AIM_COPIES, REPEATS = 4, 1.05, 3
READY = "ready\n"
SIDES = {"ours": 1, "peer": 3}  # bytes per pixel


def main() -> None:
    """Start the processes of each side in turns, show, save."""
    options = _parse()
    if options.process:
        return load_and_wait(options.process, options.data, options.size, options.cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = draw_phantoms(folder / "phantoms", options.images, 1, options.size)

        def copies(side: str, repeat: int) -> float:
            extra = ["--data", str(data), "--size", str(options.size), "--cache", str(folder / f"{side}-{repeat}")]
            added = bytes_added([sys.executable, __file__, "--process", side, *extra], folder)
            return added / (options.images * options.size**2 * SIDES[side])

        figures = in_turns(options.repeats, lambda n: copies("ours", n), lambda n: copies("peer", n))
    megabytes = options.images * options.size**2 / 1e6
    note = f"{options.images} images of {options.size} px, {PROCESSES} processes; a copy is {megabytes:.0f} MB (ours)"
    comparison = AtMost(
        "cached_images", "copies", *figures, AIM_COPIES, note=f"{note} or {3 * megabytes:.0f} MB (peer)"
    )
    comparison.save()
    show([comparison.as_dict()])
    return None


def bytes_added(command: list[str], folder: Path) -> float:
    """How much all processes together hold more when every one of them has loaded every image."""
    quiet = {"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": str(folder)}
    pipes = {"stdin": PIPE, "stdout": PIPE, "text": True}
    processes = [Popen(command, env=environment(**quiet), **pipes) for _ in range(PROCESSES)]  # type: ignore[call-overload]
    try:
        held = []
        for _ in ("opened", "loaded"):
            for process in processes:
                assert READY in process.stdout, "a process ended early"
            held.append(sum(pss(process.pid) for process in processes))
            for process in processes:
                process.stdin.write("go on\n")
                process.stdin.flush()
    finally:
        for process in processes:
            process.communicate(timeout=60)
    return held[1] - held[0]


def pss(pid: int) -> int:
    """Bytes that a process holds, shared pages in equal parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def load_and_wait(side: str, data: Path, size: int, cache: Path) -> None:
    """One process: open the data set, say so, wait, load every image, say so, wait."""
    from ray_jobs.detector.process import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    from ray_jobs.dataset.check import check_dataset
    from ray_jobs.dataset.description import read_description
    from ray_jobs.detector.xray_dataset import XrayDataset

    index = check_dataset(read_description(data), show_progress=False).index
    description = {"names": dict(enumerate(index.names)), "nc": len(index.names), "channels": 3}
    common = {"imgsz": size, "batch_size": 8, "augment": False, "hyp": get_cfg(), "rect": False, "data": description}
    folder = str(data.parent / "images" / "train")
    if side == "ours":
        dataset = XrayDataset(index.splits["train"], img_path=folder, cache_file=cache, **common)
    else:
        dataset = YOLODataset(img_path=folder, cache=False, **common)
    dataset.load_image(0)  # what decoding itself needs is not the images'
    _say_and_wait()
    if side == "ours":
        for number in range(len(dataset)):
            dataset.load_image(number)
    else:
        dataset.cache = "ram"
        dataset.cache_images()
    _say_and_wait()


def _say_and_wait() -> None:
    import gc

    gc.collect()
    print(READY, end="", flush=True)
    sys.stdin.readline()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--process", choices=tuple(SIDES), help="be one of the processes (used by this script)")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
