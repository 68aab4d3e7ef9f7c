"""``ray-jobs JOB ...`` is ``python -m ray_jobs.JOB ...``."""

import importlib
import sys

from ray_jobs.entry import run_job

JOBS = {
    "train": "train a detector",
    "tune": "search for better settings",
    "benchmark": "measure how fast training runs here, and what makes it faster",
    "check_data": "check a data set",
    "predict": "find and draw findings in X-rays",
    "read_server": "a page and an address that find them",
    "retrain": "fine-tune a registered detector on new X-rays",
    "promote": "decide who is the champion, or go back",
    "trigger": "start training on request or when new X-rays come in",
    "sync_tracking": "send what a tracking server has missed",
}


def main() -> None:
    """Run the job named by the first argument."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else "--help"
    if name not in JOBS:
        listed = "\n".join(f"  {job:14} {what}" for job, what in JOBS.items())
        wrong = name not in ("__help", "_h", "--help")
        if wrong:
            print(f"no job is called {sys.argv[1]}", file=sys.stderr)
        print(f"usage: ray-jobs JOB [--help] ...\n\njobs:\n{listed}", file=sys.stderr if wrong else sys.stdout)
        sys.exit(2 if wrong else 0)
    run_job(importlib.import_module(f"ray_jobs.{name}").main, sys.argv[2:])


if __name__ == "__main__":
    main()
