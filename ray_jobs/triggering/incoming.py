"""Where new images appear: a folder, or a prefix of a bucket, of which a copy is kept here.

In: the data.yaml of the new images, whose ``path`` may be ``s3://bucket/prefix``. Out: a description whose files are on
this machine, in a folder that the cluster's nodes see as well (``state/incoming``).
"""

import json
from pathlib import Path

from ray_jobs.dataset.description import DataDescription, read_description
from ray_jobs.errors import DataError
from ray_jobs.pixels import IMAGE_SUFFIXES
from ray_jobs.triggering.queue import write_whole
from ray_jobs.yaml_source import read_yaml

S3 = "s3://"
_WANTED = IMAGE_SUFFIXES | {".txt"}


def describe_incoming(data_yaml: Path, state: Path) -> DataDescription:
    """Read the description; where the images lie in a bucket, fetch what is new there first.

    Raises ``DataError`` for what cannot be read, and ``PlatformError`` for an object that arrives damaged.
    """
    root = read_yaml(data_yaml, DataError).values.get("path")
    if not (isinstance(root, str) and root.startswith(S3)):
        return read_description(data_yaml, required=("train",))
    copy = state / "incoming"
    mirror(root, copy)
    return read_description(data_yaml, copy, required=("train",))


def mirror(url: str, folder: Path) -> None:
    """Make ``folder`` hold the images and labels below ``s3://bucket/prefix``: new and changed objects are fetched and
    verified, what is gone there goes here. An object appears whole or not at all."""
    from ray_jobs.storage.bucket_folder import open_bucket_folder

    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / ".etags.json"
    known: dict[str, str] = json.loads(ledger.read_text(encoding="utf-8")) if ledger.is_file() else {}
    bucket = open_bucket_folder(url)
    there = {file.name: file for file in bucket.listing() if Path(file.name).suffix.lower() in _WANTED}
    for name, file in there.items():
        target = folder / name
        if known.get(name) == file.etag and target.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        bucket.fetch(file, partial)
        partial.replace(target)
        known[name] = file.etag
        write_whole(ledger, json.dumps(known))
    for name in known.keys() - there.keys():
        (folder / name).unlink(missing_ok=True)
        del known[name]
    write_whole(ledger, json.dumps(known))
