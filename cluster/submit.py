"""Submit a job to a Ray cluster, show its log, and end with its own exit code.

    python cluster/submit.py [--notice TEXT] -- python -m ray_jobs.train --config ... --data ...

`ray job submit` ends with 1 whatever the job ended with; here bad input stays 2. Ctrl-C or SIGTERM stops the job and
waits until it has. Address and token come from RAY_API_SERVER_ADDRESS and RAY_AUTH_TOKEN.
"""

import argparse
import asyncio
import shlex
import signal
import sys
from types import FrameType

FAILED = 1
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Stopped(Exception):
    """A signal asked for the end; carries it."""


def main(arguments: list[str]) -> int:
    """Submit, follow, and return the exit code of the job's driver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notice", help="a line to print first")
    parser.add_argument("entrypoint", nargs="+", help="the command to run on the cluster, after --")
    options = parser.parse_args(arguments)
    if options.notice:
        print(options.notice)

    from ray.job_submission import JobSubmissionClient  # heavy: not needed for --help

    for number in STOPPED:
        signal.signal(number, _stop)
    client = JobSubmissionClient()
    job_id = client.submit_job(entrypoint=shlex.join(options.entrypoint))
    print(f"submitted {job_id}")
    try:
        return _follow(client, job_id)
    except Stopped as stopped:
        number = signal.Signals(stopped.args[0])
        print(f"{number.name}: stopping {job_id}")
        client.stop_job(job_id)
        _follow(client, job_id)
        return STOPPED[number]


def _stop(number: int, _frame: FrameType | None) -> None:
    for each in STOPPED:  # a second signal must not cut the stopping short
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def _follow(client, job_id: str) -> int:  # type: ignore[no-untyped-def]
    """Print the job's log until it ends. Returns its exit code; 1 where it has none (it never started)."""

    async def show_log() -> None:
        async for lines in client.tail_job_logs(job_id):
            print(lines, end="", flush=True)

    asyncio.run(show_log())
    job = client.get_job_info(job_id)
    print(f"{job_id}: {job.message or job.status}")
    if job.driver_exit_code is not None:
        return int(job.driver_exit_code)
    return 0 if str(job.status) == "SUCCEEDED" else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
