"""Start training on request, and fine-tuning by itself when new labelled X-rays have come in.

    XRAY_TRIGGER_TOKEN=... python -m ray_jobs.trigger --config config/trigger.yaml
    curl -H "Authorization: Bearer $XRAY_TRIGGER_TOKEN" -X POST http://127.0.0.1:8090/trigger-finetune -d '{}' \\
         -H 'Content-Type: application/json'

A small service in front of a Ray cluster: http://127.0.0.1:8090/docs describes its requests. It listens on 127.0.0.1
unless told otherwise, and can be stopped and started at any time: jobs go on, and nothing that waits is lost.
Exit codes: 0 stopped, 2 bad settings or no token.
"""

import argparse
import fcntl
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ray_jobs.entry import run_job
from ray_jobs.errors import StorageError
from ray_jobs.triggering.options import read_options, read_token


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.trigger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("config/trigger.yaml"), metavar="YAML", help="its settings")
    parser.add_argument("--host", help="the address to listen on")
    parser.add_argument("--port", type=int, help="the port to listen on")
    given = parser.parse_args(arguments)
    options, token = read_options(given.config, {"host": given.host, "port": given.port}), read_token()
    import uvicorn

    from ray_jobs.triggering.service import make_app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with _only_one(options.state):
        uvicorn.run(make_app(options, token), host=options.host, port=options.port, log_level="info", access_log=False)
    return 0


def _only_one(state: Path) -> IO[str]:
    """A lock on the state's folder, so that no two services look after one ledger. Raises ``StorageError``."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / ".lock").open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"state: {state}: cannot be written to: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StorageError(f"state: {state}: another trigger service uses it; stop that one") from None
    return lock


if __name__ == "__main__":
    run_job(main)
