"""Send to MLflow what a run could not send while it trained.

    python -m ray_jobs.sync_tracking runs/RUN [runs/OTHER ...] [--uri URI] [--timeout SECONDS]

A run writes everything that belongs to MLflow into ``tracking/spool.jsonl`` of its own folder first. When the server
was down, slow or unreachable, the rest waits there and this sends it: metrics with their original times, files, the
data set, the registered model. It can be repeated, and stopped at any point: nothing arrives twice.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ray_jobs.entry import run_job
from ray_jobs.errors import BadInput, PlatformError
from ray_jobs.tracking.addresses import HIDDEN, TRACKING_OFF, open_command, redact, resolve_uri, run_page
from ray_jobs.tracking.client import cause
from ray_jobs.tracking.delivery import Delivery
from ray_jobs.tracking.spool import read_spool, spool_path

EPILOG = """\
The address is the one the run was started with. Give --uri when the server has moved, when that address held a
password (which is never written down), or to send a copy to another server. User name and password, or a token, come
from MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and MLFLOW_TRACKING_TOKEN.

Exit codes: 0 everything is sent, 1 the server still fails (what waits is said; run it again), 2 no such run or a
damaged spool.
"""

PAUSE_S = 2.0


def main(arguments: Sequence[str]) -> int:
    """Send the spools of the runs named in ``arguments``; return 0, or 1 when something still waits."""
    options = _parse(arguments)
    runs = [(run_dir, _address(run_dir, options.uri)) for run_dir in _check_runs(options.run_dirs)]
    done = [_send(run_dir, uri, options.timeout) for run_dir, uri in runs]
    return 0 if all(done) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.sync_tracking",
        description="Send to MLflow what a run could not send while it trained. Can be repeated.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="a run's folder, such as runs/NAME")
    parser.add_argument("--uri", help="the MLflow server, or sqlite:///FILE, to send to")
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long to keep trying a server that fails before giving up (default: %(default)g)",
    )
    return parser.parse_args(arguments)


def _check_runs(run_dirs: list[Path]) -> list[Path]:
    """The folders, resolved; raises BadInput with every one that is no tracked run."""
    problems = [
        f"{run_dir}: no such folder"
        if not run_dir.is_dir()
        else f"{run_dir}: holds no tracked run (no {spool_path(run_dir).relative_to(run_dir)}); was tracking off?"
        for run_dir in run_dirs
        if not spool_path(run_dir).is_file()
    ]
    if problems:
        raise BadInput(problems)
    return [run_dir.resolve() for run_dir in run_dirs]


def _address(run_dir: Path, given: str | None) -> str:
    """Where to send: what was given, else what the run was started with. Reads the whole spool, so finds its damage."""
    records = [record for record, _ in read_spool(spool_path(run_dir))]
    if not records or records[0]["kind"] != "start":
        raise BadInput(f"{spool_path(run_dir)}: does not begin with the start of a run; it cannot be sent")
    if given in TRACKING_OFF:
        raise BadInput(f"--uri: cannot send to {given!r}; name a server")
    start = records[0]
    if given is None and HIDDEN in start["uri"]:
        given = _with_password(start["uri"])
    return resolve_uri(given or start["uri"], run_dir.parent)


def _with_password(uri: str) -> str:
    """The address whose password was left out of the spool, from the environment if it is the same otherwise."""
    import os

    if redact(known := os.environ.get("MLFLOW_TRACKING_URI", "")) == uri:
        return known
    raise BadInput(f"the run was tracked at {uri}, whose password is not kept; give the whole address with --uri")


def _send(run_dir: Path, uri: str, timeout_s: float) -> bool:
    """Send one run, trying again until nothing has moved for ``timeout_s``; say how it went."""
    delivery = Delivery(run_dir, uri)
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            confirmed = delivery.cursor.records
            try:
                delivery.send_pending()
            except BadInput:
                raise
            except Exception as error:  # the server's failures come in many classes, and all of them mean: later
                if delivery.cursor.records > confirmed:
                    deadline = time.monotonic() + timeout_s
                if time.monotonic() + PAUSE_S >= deadline:
                    _say_failure(delivery, run_dir, uri, error)
                    return False
                time.sleep(PAUSE_S)
            else:
                _say_success(delivery, run_dir, uri)
                return True
    finally:
        delivery.close()


def _say_success(delivery: Delivery, run_dir: Path, uri: str) -> None:
    cursor = delivery.cursor
    print(f"{run_dir.name}: {_counted(delivery.sent)}" if delivery.sent else f"{run_dir.name}: nothing left to send")
    if delivery.refused:
        print(f"  {delivery.refused} records were refused for good; they and the reasons are in tracking/refused.jsonl")
    if cursor.registered:
        print(f"  registered: {cursor.registered['name']} version {cursor.registered['version']}")
    print(f"  look at it: {run_page(uri, cursor.experiment_id, cursor.run_id) or open_command(uri)}")


def _say_failure(delivery: Delivery, run_dir: Path, uri: str, error: Exception) -> None:
    reason = str(error) if isinstance(error, PlatformError) else f"{redact(uri)} fails: {cause(error)}"
    sent = f"{_counted(delivery.sent)}, then: " if delivery.sent else ""
    print(f"{run_dir.name}: {sent}{reason}")
    print(f"  {delivery.pending()} records wait; run this again when the server answers")


def _counted(sent: Counter[str]) -> str:
    return f"sent {sent.total()} records (" + ", ".join(f"{kind} {count}" for kind, count in sent.items()) + ")"


if __name__ == "__main__":
    run_job(main)
