"""The door that every job goes through: errors become one clear message and an exit code.

Exit codes: 0 done, 1 failed while running, 2 bad input, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ray_jobs.errors import PlatformError

JobMain = Callable[[Sequence[str]], int]


def run_job(main: JobMain, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a job's ``main(arguments)`` and leave the process with its exit code."""
    try:
        code = main(sys.argv[1:] if arguments is None else arguments)
    except PlatformError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    sys.exit(code)
