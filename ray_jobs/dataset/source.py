"""Finds a data set wherever it lies: on this machine, or in a bucket, of which this node then gets a copy.

Comes in: the address of a data.yaml, ``PATH/data.yaml`` or ``s3://bucket/prefix/data.yaml`` (``s3://bucket/prefix``
means the same). A local data.yaml may name a bucket too: ``path: s3://bucket/prefix``. Goes out: a description whose
paths are all on this machine.
"""

import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ray_jobs.dataset.description import REQUIRED, DataDescription, read_description
from ray_jobs.dataset.local_copy import copy_here, default_cache
from ray_jobs.errors import DataError
from ray_jobs.storage.bucket_folder import BucketFolder, RemoteFile, open_bucket_folder
from ray_jobs.yaml_source import read_yaml

S3 = "s3://"


def is_in_bucket(data: str) -> bool:
    """Whether an address is that of a data set in a bucket."""
    return data.startswith(S3)


def describe_data(
    data: str | Path,
    data_cache: str | None = None,
    say: Callable[[str], None] = print,
    required: Collection[str] = REQUIRED,
) -> DataDescription:
    """Read a data.yaml that names the ``required`` splits and, where its data set lies in a bucket, bring that here.

    ``data_cache`` is the folder for copies; None: ``local_copy.default_cache()``. Raises ``DataError`` and what
    ``local_copy.copy_here`` raises; nothing is copied before bucket and data.yaml were found to be readable.
    """
    cache = Path(data_cache).expanduser() if data_cache else default_cache()
    if is_in_bucket(str(data)):
        return _describe_bucket(str(data), cache, say, required)
    yaml_path = Path(data).expanduser()
    root = read_yaml(yaml_path, DataError).values.get("path")
    if not (isinstance(root, str) and root.startswith(S3)):
        return read_description(yaml_path, required=required)
    origin = copy_here(root, cache, say)
    return replace(read_description(yaml_path, origin.files, required), origin=origin)


def _describe_bucket(data: str, cache: Path, say: Callable[[str], None], required: Collection[str]) -> DataDescription:
    is_file = data.endswith((".yaml", ".yml"))
    url, name = data.rsplit("/", 1) if is_file else (data, "data.yaml")
    bucket = open_bucket_folder(url)
    listing = bucket.listing()
    file = next((file for file in listing if file.name == name), None)
    if file is None:
        there = ", ".join(sorted({each.name.partition("/")[0] for each in listing})[:8])
        raise DataError(f"data: {bucket.url}: holds no {name}; there are {there}")
    inside = _folder_inside(bucket, file)
    origin = copy_here(url, cache, say, listing)
    description = read_description(origin.files / name, origin.files / inside, required)
    return replace(description, origin=origin)


def _folder_inside(bucket: BucketFolder, file: RemoteFile) -> PurePosixPath:
    """What the data.yaml says under ``path``, which must be a folder below its own; ``.`` where it says nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "data.yaml"
        bucket.fetch(file, copy)
        try:
            value: Any = read_yaml(copy, DataError).values.get("path") or "."
        except DataError as error:
            raise DataError([line.replace(str(copy), f"{bucket.url}/{file.name}") for line in error.problems]) from None
    if value == bucket.url:
        return PurePosixPath(".")
    inside = PurePosixPath(str(value))
    if not isinstance(value, str) or value.startswith(S3) or inside.is_absolute() or ".." in inside.parts:
        raise DataError(
            f"{bucket.url}/{file.name}: path: must be a folder below the file's own, got {value!r}; leave it out where "
            "images/ and labels/ lie beside the file"
        )
    return inside
