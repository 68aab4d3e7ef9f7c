"""Load on the read server: ``python benchmarks/read_server.py MODEL.onnx XRAY.png``.

Starts the server, then for each number of clients (1, 4, 16 and 64 by default) lets them ask without a pause for some
seconds. Prints requests/s, the latency of those answered (median, 95th and 99th percentile) and how many were refused
with 503, and writes it to benchmarks/results/read_server.json.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

RESULT = Path(__file__).parent / "results" / "read_server.json"


async def load(url: str, token: str, picture: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """What ``clients`` clients, each asking again as soon as it is answered, see in so many seconds."""
    latencies: list[float] = []
    codes: Counter[int] = Counter()
    end = time.perf_counter() + seconds
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}

    async def keep_asking() -> None:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            while (started := time.perf_counter()) < end:
                answer = await client.post("/v1/findings", content=picture)
                codes[answer.status_code] += 1
                if answer.status_code == 200:
                    latencies.append(time.perf_counter() - started)
                else:
                    await asyncio.sleep(float(answer.headers["Retry-After"]))

    await asyncio.gather(*(keep_asking() for _ in range(clients)))
    p50, p95, p99 = (round(float(value) * 1000) for value in np.percentile(latencies, [50, 95, 99]))
    return {
        "clients": clients,
        "requests_per_second": round(codes[200] / seconds, 1),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "refused_503": codes[503],
        "other": sum(codes.values()) - codes[200] - codes[503],
    }


def main() -> None:
    """Serve, ask, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    token = secrets.token_hex(24)
    command = [sys.executable, "-m", "ray_jobs.read_server", "--model", str(options.model), "--port", str(port)]
    rounds = []
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, env=os.environ | {"XRAY_READ_TOKEN": token}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 300
            while "reading with" not in Path(f"/proc/self/fd/{log.fileno()}").read_text():
                assert server.poll() is None, "the server did not start"
                assert time.monotonic() < deadline, "the server did not start in time"
                time.sleep(0.3)
            url, picture = f"http://127.0.0.1:{port}", options.picture.read_bytes()
            asyncio.run(load(url, token, picture, 2, 2.0))
            for clients in options.clients:
                rounds.append(asyncio.run(load(url, token, picture, clients, options.seconds)))
                print(json.dumps(rounds[-1]), flush=True)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    record = {
        "name": "read_server: POST /v1/findings, clients that ask without a pause, one replica",
        "picture_bytes": options.picture.stat().st_size,
        "rounds": rounds,
        "load_average": os.getloadavg()[0],
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, clients on the same cores",
        "versions": {name: version(name) for name in ("ray", "onnxruntime", "fastapi")},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
