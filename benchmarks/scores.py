"""Whether what makes training fast costs score: best validation mAP50 over seeds on real X-rays, here and plain.

    python benchmarks/scores.py [--data DATA.yaml] [--epochs 30] [--size 192] [--seeds 3] [--minutes M]

Ours trains in bf16 with one channel until the network, folded validation and all else that is there for speed; the peer
is plain Ultralytics in fp32. Same images, seeds, batch and optimizer settings. Both sides of a seed run at once with a
core each, so their speed says nothing. The result goes to ``benchmarks/results/training_scores.json``.
"""

import argparse
import json
import math
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from commands import XRAYS
from comparison import WithinNoise, show
from training import BATCH, Job, own_copy

DATA = XRAYS / "nih-cxr8-boxes" / "data.yaml"
FAST = {"precision": "bf16", "cluster.num_workers": 1, "cluster.cpus_per_worker": 1}


def main() -> None:
    """Train both with every seed, show, save."""
    options = _parse()
    source = options.data or (DATA if DATA.is_file() else None)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(own_copy(source, Path(folder) / "data", 1), Path(folder), options.epochs, options.size)
        ours, peer = scores(job, options.seeds, options.minutes)
    name = source.parent.name if source else "phantoms"
    note = f"{name}: best validation mAP50 of {options.epochs} epochs, {options.size} px, batch {BATCH}, a seed each"
    result = WithinNoise("training_scores", "mAP50", ours, peer, 2.0, note=note)
    result.save()
    print(json.dumps(result.as_dict()["repeats"]))
    show([result.as_dict()])


def scores(job: Job, seeds: int, minutes: float) -> tuple[list[float], list[float]]:
    """Best validation mAP50 of ours and of the peer, one a seed; no seed is begun that would end too late."""
    ours: list[float] = []
    peer: list[float] = []
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        for seed in range(seeds):
            so_far = (time.monotonic() - began) / 60
            if seed and so_far * (seed + 1) / seed > minutes:
                print(f"  no seed {seed}: it would end after more than {minutes:g} minutes", flush=True)
                break
            sides = pool.submit(lambda seed=seed: job.ours(seed, **FAST)), pool.submit(job.peer, seed)
            for figures, side in zip((ours, peer), sides, strict=True):
                figures.append(side.result()["map50"])
            print(f"  seed {seed}: mAP50 {ours[-1]:.4f} here, {peer[-1]:.4f} plain", flush=True)
    return ours, peer


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="YAML", help="without it the X-rays of the tests, else phantoms")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=192, help="pixels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no seed that would end later")
    return parser.parse_args()


if __name__ == "__main__":
    main()
