"""How fast a data set comes from a bucket to a node's disk: `python benchmarks/data_copy.py FOLDER`.

In: a data set in the YOLO layout. It is put into a bucket of a moto server in a process of its own, copied, and the
copy verified again as a second run on the node does. The peer is the same boto3 getting the same objects one after the
other, unverified. Out: seconds and files per second of each, and the ratio to the peer.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_jobs.dataset.local_copy import copy_here

URL = "s3://benchmark/set"


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a moto server."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        address = next(line.split()[-1] for line in process.stderr if "Running on" in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address
        process.terminate()


def seconds(work: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def get_one_after_the_other(client: Any, names: list[str], folder: Path) -> None:
    """What a short script of one's own would do."""
    for number, name in enumerate(names):
        body = client.get_object(Bucket="benchmark", Key=f"set/{name}")["Body"].read()
        (folder / str(number)).write_bytes(body)


def main(source: Path) -> None:
    """Measure and print."""
    import boto3

    files = {str(file.relative_to(source)): file for file in sorted(source.rglob("*")) if file.is_file()}
    size = sum(file.stat().st_size for file in files.values()) / 1e6
    with s3_server() as address, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="benchmark")
        for name, file in files.items():
            client.put_object(Bucket="benchmark", Key=f"set/{name}", Body=file.read_bytes())
        (Path(folder) / "peer").mkdir()
        peer = seconds(lambda: get_one_after_the_other(client, list(files), Path(folder) / "peer"))
        copy = seconds(lambda: copy_here(URL, Path(folder) / "cache"))
        again = seconds(lambda: copy_here(URL, Path(folder) / "cache"))
    print(f"{len(files):,} files, {size:.0f} MB")
    print(f"one after the other, unverified: {peer:.1f} s, {len(files) / peer:,.0f} files/s")
    print(f"copied and verified: {copy:.1f} s, {len(files) / copy:,.0f} files/s, {peer / copy:.2f} times the peer")
    print(f"listed and verified again: {again:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
