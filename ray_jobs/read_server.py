"""A page where a radiologist drops X-rays and sees what the detector finds, and the same as JSON.

    export XRAY_READ_TOKEN=$(openssl rand -hex 24)
    python -m ray_jobs.read_server --model models:/xray-detector@champion
    python -m ray_jobs.read_server --model best.onnx --port 8010 --threshold Mass=0.4

    curl --data-binary @chest.png -H "Content-Type: image/png" -H "Authorization: Bearer $XRAY_READ_TOKEN" \\
        http://127.0.0.1:8010/v1/findings

It listens on 127.0.0.1 unless --host says otherwise. When the alias moves to another version, that one takes over
within seconds and no request fails. Pictures are kept in memory while they are read, and nowhere else. For research,
not for diagnosis.
"""

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence

from ray_jobs.entry import run_job
from ray_jobs.errors import BadInput, PlatformError, TrackingError
from ray_jobs.flows.ray_cluster import cluster_address, connect
from ray_jobs.reading.thresholds import parse_override
from ray_jobs.serving.detector import find_detector, registry_uri
from ray_jobs.serving.folder import available_threads
from ray_jobs.settings import ClusterSettings, Settings
from ray_jobs.tracking.registered_model import SCHEME

TOKEN = "XRAY_READ_TOKEN"
SHORTEST_TOKEN = 16
APP = "xray-reader"  # its name in Ray Serve


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal comes. Whatever can be wrong at the start is told before Ray is started."""
    options = _parse(arguments)
    token = os.environ.get(TOKEN, "")
    if len(token) < SHORTEST_TOKEN:
        raise BadInput(
            f"{TOKEN}: must be set to a secret of at least {SHORTEST_TOKEN} characters: "
            f"export {TOKEN}=$(openssl rand -hex 24)"
        )
    override = parse_override(options.threshold)
    if not cluster_address(ClusterSettings(address=options.cluster)):
        _check_free(options.host, options.port)
    try:
        file = find_detector(options.model, override)
    except TrackingError as error:
        raise BadInput(f"{error}; check MLFLOW_TRACKING_URI") from None
    file.load()
    os.environ.pop(TOKEN)  # Ray's processes inherit the environment, and need no token
    _serve(options, override, token)
    return 0


def _serve(options: argparse.Namespace, override: object, token: str) -> None:
    cluster = ClusterSettings(address=options.cluster)
    # On a busy machine a process takes longer to start than the 5 s after which Serve takes its proxy for dead.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    connect(Settings(device="cpu", cluster=cluster))
    import ray

    joined = cluster_address(cluster)
    try:
        if joined:
            check_room(joined, options.host, options.port)
        _serve_until_stopped(options, override, token, bool(joined))
    finally:
        ray.shutdown()


def _serve_until_stopped(options: argparse.Namespace, override: object, token: str, joined: bool) -> None:
    from ray import serve
    from ray.exceptions import RayError

    from ray_jobs.serving.deployment import ReplicaSettings, application
    from ray_jobs.serving.web_app import token_digest

    uri = registry_uri(None) if options.model.startswith(SCHEME) else None
    settings = ReplicaSettings(
        model=options.model if uri else os.path.abspath(options.model),  # noqa: PTH100 - replicas work elsewhere
        override=override,  # type: ignore[arg-type]
        tracking_uri=uri,
        token_digest=token_digest(token),
        max_bytes=options.max_mb << 20,
        threads=max(1, available_threads() // options.replicas),
        poll_s=options.poll_s,
    )
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": options.host, "port": options.port},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        app = application(settings, options.replicas, options.at_once, options.waiting)
        serve.run(app, name=APP, logging_config={"enable_access_log": False})
        print(f"reading with {options.model} at http://{options.host}:{options.port}/", flush=True)
        print(f"the page asks for the token in {TOKEN}; Ctrl-C stops", file=sys.stderr, flush=True)
        threading.Event().wait()
    except (RuntimeError, RayError) as error:
        raise PlatformError(
            f"the read server could not be started: {next(iter(str(error).strip().splitlines()), type(error).__name__)}"
        ) from error
    finally:
        stop_serving(joined)


def check_room(address: str, host: str, port: int) -> None:
    """Raises BadInput where the joined cluster has a read server, which ours would replace, or serves elsewhere:
    Ray Serve has one address for all that it serves, and would ignore ours."""
    from ray import serve
    from ray.serve.context import _get_global_client

    if APP in serve.status().applications:
        raise BadInput(
            f"{address}: a read server is there already, as {APP} of Ray Serve; stop it, or choose another cluster"
        )
    running = _get_global_client(raise_if_no_controller_running=False)
    if running is not None and (running.http_config.host, running.http_config.port) != (host, port):
        there = running.http_config
        raise BadInput(
            f"--host {host} --port {port}: the cluster's Ray Serve listens at {there.host}:{there.port} already; give "
            f"--host {there.host} --port {there.port}, or choose another cluster"
        )


def stop_serving(joined: bool) -> None:
    """Stop Ray Serve, or where the joined cluster serves applications of others too, this one alone."""
    from ray import serve

    if joined and set(serve.status().applications) - {APP}:
        serve.delete(APP)
    else:
        serve.shutdown()


def _check_free(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise BadInput(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); choose another"
        ) from None


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.read_server", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="models:/NAME@ALIAS (followed), best.onnx or best.pt")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8010)
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="SCORE|CLASS=SCORE", help="instead of the model's own"
    )
    parser.add_argument("--replicas", type=_positive, default=1, help="processes that read (default: 1)")
    parser.add_argument("--at-once", type=_positive, default=16, help="requests that a replica works on (default: 16)")
    parser.add_argument("--waiting", type=_positive, default=32, help="requests that may wait (default: 32)")
    parser.add_argument("--max-mb", type=_positive, default=32, help="largest picture in MiB (default: 32)")
    parser.add_argument("--poll-s", type=float, default=5.0, help="seconds between looks at the alias (default: 5)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="the Ray cluster to serve on (default: RAY_ADDRESS)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


if __name__ == "__main__":
    run_job(main)
