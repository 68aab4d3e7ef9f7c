"""Every comparison that this machine can run, one after the other, and one table of what came out.

    make bench          # python benchmarks/run.py: under 50 minutes on two quiet cores
    make bench-full     # python benchmarks/run.py --full: all of it, at its full size
    python benchmarks/run.py --only memory checkpoint

Each part is a script of its own that writes ``benchmarks/results/NAME.json`` when it is done; one that fails is said,
and the others go on. X-rays: ``--data``, else those of the tests where they are found, else phantoms.
Exit codes: 0 all parts ran (whether aims are met stands in the table), 1 a part failed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import ROOT, XRAYS, environment
from comparison import RESULTS, show

HERE = Path(__file__).resolve().parent
DATA = XRAYS / "nih-cxr8-boxes-mini" / "data.yaml"


@dataclass(frozen=True)
class Part:
    """A script with its arguments, for ``make bench`` and for ``make bench-full`` (None: left out). ``data``: it takes
    X-rays. ``gpu``: it needs a GPU."""

    name: str
    quick: Sequence[str] | None
    full: Sequence[str] | None
    script: str = ""
    data: bool = False
    gpu: bool = False

    def command(self, full: bool, data: Path | None) -> list[str] | None:
        """What to run; None where this part is left out."""
        arguments = self.full if full else self.quick
        if arguments is None:
            return None
        xrays = ["--data", str(data)] if self.data and data else []
        return [sys.executable, str(HERE / (self.script or f"{self.name}.py")), *arguments, *xrays]


PARTS = (
    Part("memory", ("--repeats", "1"), ()),
    Part("checkpoint", ("--epochs", "6"), ("--epochs", "20"), data=True),
    Part(
        "workers",
        ("--workers", "--epochs", "4", "--repeats", "3", "--minutes", "6"),
        ("--workers",),
        "training.py",
        True,
    ),
    Part("predict", ("--images", "200", "--repeats", "2"), ("--repeats", "5")),
    Part("tune", ("--repeats", "1"), ("--repeats", "5")),
    Part("training", ("--repeats", "3", "--minutes", "23"), (), data=True),
    Part("ten_times", None, ("--times", "10", "--repeats", "3"), script="training.py", data=True),
    Part("scores", None, ()),
    Part("growth", ("--images", "1000", "10000"), ("--images", "1000", "10000", "100000")),
    Part("scaling", (), (), data=True),
    Part("gpu", (), ("--full",), gpu=True),
    Part("predict_gpu", ("--gpu", "--repeats", "3"), ("--gpu", "--repeats", "5"), script="predict.py", gpu=True),
)


def main() -> int:
    """Run the parts, show what came out."""
    options = _parse()
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    data = options.data or (DATA if DATA.is_file() else None)
    print(f"X-rays: {data or 'phantoms'}", flush=True)
    began = time.time()
    failed = run_parts(parts, options.full, data)
    rows = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json")) if file.stat().st_mtime >= began]
    show([row for row in rows if "met" in row])
    print(f"{(time.time() - began) / 60:.0f} min; results in {RESULTS.relative_to(ROOT)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run_parts(parts: Sequence[Part], full: bool, data: Path | None) -> list[str]:
    """Run each part; returns the names of those that failed."""
    failed = []
    for number, part in enumerate(parts, 1):
        command = part.command(full, data)
        title = f"[{number}/{len(parts)}] {part.name}"
        if command is None:
            print(f"{title}: only with make bench-full", flush=True)
        elif part.gpu and not has_gpu():
            print(f"{title}: this machine has no GPU", flush=True)
        else:
            print(title, flush=True)
            started = time.perf_counter()
            code = subprocess.run(command, env=environment()).returncode
            print(
                f"{title}: {f'failed with {code}' if code else 'done'}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
            failed += [part.name] * bool(code)
    return failed


def has_gpu() -> bool:
    """Whether PyTorch can use one."""
    import torch

    return bool(torch.cuda.is_available())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="take the time it needs")
    parser.add_argument("--data", type=Path, metavar="YAML", help="data.yaml of about 75 X-rays")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
