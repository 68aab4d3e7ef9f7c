"""The door that every job goes through: errors become one clear message and an exit code.

Exit codes: 0 done, 1 failed while running, 2 bad input, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ray_jobs.errors import PlatformError

JobMain = Callable[[Sequence[str]], int]


def run_job(main: JobMain, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a job's ``main(arguments)`` and leave the process with its exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main(sys.argv[1:] if arguments is None else arguments)
    except PlatformError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    sys.exit(code)


def how_to_run(job: str) -> str:
    """The start of a command that runs a job with this very Python, for messages: ``python -m ray_jobs.train``."""
    here = Path(sys.executable)
    on_path = shutil.which("python")
    if on_path and Path(on_path).resolve() == here.resolve() and Path(on_path).parent == here.parent:
        return f"python -m ray_jobs.{job}"
    shown = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    return f"{shown} -m ray_jobs.{job}"


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature of signal handlers
    print("stopped", file=sys.stderr)
    sys.exit(128 + number)
