"""How long a checkpoint keeps training waiting: ``python benchmarks/checkpoint.py [--data DATA.yaml] [--epochs 9]``.

The object store answers after 200 ms and takes 20 MB/s (moto behind the proxy of the fault tests). Ours: the seconds
that each epoch's checkpoint held up the training thread, from the journal of a real run. The peer: writing the same
state to disk and putting the same files with boto3 before going on, as a callback in the training loop would.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import boto3
from commands import ROOT, draw_phantoms, train
from comparison import AtMost, show

AIM_S, DELAY_S, BYTES_PER_S, BUCKET = 0.05, 0.2, 20e6, "checkpoints"


def main() -> None:
    """Train with the slow store, upload to it in front of training, show, save."""
    options = _parse()
    with tempfile.TemporaryDirectory() as name, slow_store() as (direct, slow):
        folder = Path(name)
        direct.create_bucket(Bucket=BUCKET)
        print(f"  training {options.epochs} epochs", flush=True)
        settings = {"epochs": options.epochs, "img_size": options.size, "batch_size": 16, "device": "cpu"}
        data = options.data or draw_phantoms(folder / "phantoms")
        run = train(data, folder, **settings, **{"storage.url": f"s3://{BUCKET}/runs", "export.onnx": "false"})
        ours, dropped = blocked_seconds(run)
        files = fetch_last(direct, folder)
        print(f"  uploading in front of training, {len(ours)} times", flush=True)
        peer = [synchronous_upload(files, folder, slow) for _ in ours]
        megabytes = sum(file.stat().st_size for file in files) / 1e6
    note = f"{megabytes:.0f} MB, a store with {DELAY_S:g} s of delay and {BYTES_PER_S / 1e6:g} MB/s"
    details = {"epochs": options.epochs, "epochs_without_a_checkpoint": dropped}
    comparison = AtMost("checkpoint_blocks_training", "s", ours, peer, AIM_S, note=note, details=details)
    comparison.save()
    show([comparison.as_dict()])


@contextmanager
def slow_store() -> Iterator[tuple[Any, Any]]:
    """An S3 server; a client that reaches it at once, and one behind the slow line that the environment points to."""
    sys.path.insert(0, str(ROOT))
    from tests.faults.proxy import Proxy

    os.environ.update(AWS_ACCESS_KEY_ID="any", AWS_SECRET_ACCESS_KEY="any", AWS_REGION="us-east-1")
    server = Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stderr=PIPE, text=True)
    assert server.stderr
    address = next(line.split()[-1] for line in server.stderr if "Running on" in line)
    threading.Thread(target=server.stderr.read, daemon=True).start()
    proxy = Proxy(address)
    proxy.delay_s, proxy.bytes_per_s = DELAY_S, BYTES_PER_S
    os.environ["AWS_ENDPOINT_URL"] = proxy.url
    try:
        yield tuple(boto3.client("s3", endpoint_url=url, region_name="us-east-1") for url in (address, proxy.url))
    finally:
        proxy.close()
        server.terminate()
        server.wait(10)


def blocked_seconds(run: Path) -> tuple[list[float], int]:
    """What each stored checkpoint cost the training thread, and how many epochs ended while one was on its way."""
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    stored = [epoch["metrics"]["checkpoint_blocked_seconds"] for epoch in epochs if epoch["checkpoint"]]
    return stored, len(epochs) - len(stored)


def fetch_last(store: Any, folder: Path) -> list[Path]:
    """The files of the newest checkpoint."""
    keys = [found["Key"] for found in store.list_objects_v2(Bucket=BUCKET)["Contents"]]
    newest = max(Path(key).parent for key in keys if key.endswith("state.pt"))
    files = []
    for key in keys:
        if Path(key).parent == newest:
            files.append(folder / Path(key).name)
            store.download_file(BUCKET, key, str(files[-1]))
    return files


def synchronous_upload(files: list[Path], folder: Path, store: Any) -> float:
    """Seconds to write the state and put every file, one after the other."""
    import torch

    state = torch.load(folder / "state.pt", weights_only=False)
    started = time.perf_counter()
    torch.save(state, folder / "state.pt")
    for file in files:
        store.upload_file(str(file), BUCKET, f"synchronous/{file.name}")
    return time.perf_counter() - started


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="YAML", help="without it, phantoms")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
