"""Which X-rays a person means: files, folders, ``s3://bucket/prefix``; and how their bytes are had.

In: places. Out: pictures, each with a name of its own below its place. Nothing is opened yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ray_jobs.dicom import SUFFIXES as DICOM_SUFFIXES
from ray_jobs.errors import DataError
from ray_jobs.pixels import IMAGE_SUFFIXES, MAX_BYTES, read_bytes

READ_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES


@dataclass(frozen=True)
class Picture:
    """An X-ray: ``source`` is its absolute path or ``s3://`` address, ``name`` its path below the place that was named,
    ``shown`` how the person would write it."""

    source: str
    name: PurePosixPath
    shown: str

    def read(self) -> bytes:
        """Its bytes. Raises DataError where it cannot be read."""
        if self.source.startswith("s3://"):
            from ray_jobs.storage.objects import read_object

            return read_object(self.source, MAX_BYTES)
        return read_bytes(Path(self.source))


def find_pictures(places: Sequence[str], out: Path | None = None) -> list[Picture]:
    """Every X-ray at these places, each once, in the order of places and names.

    A folder or prefix is searched for known endings, but not in ``out``, where drawings go; a file is taken by any
    name. Raises DataError with every place that is not there or holds none.
    """
    found: dict[str, Picture] = {}
    problems = []
    for place in places:
        pictures = _in_bucket(place) if place.startswith("s3://") else _on_disk(Path(place).expanduser(), out)
        if isinstance(pictures, str):
            problems.append(pictures)
            continue
        for picture in pictures:
            found.setdefault(picture.source, picture)
    if problems:
        raise DataError(problems)
    return list(found.values())


def _on_disk(place: Path, out: Path | None) -> list[Picture] | str:
    if place.is_file():
        return [Picture(str(place.resolve()), PurePosixPath(place.name), str(place))]
    if not place.is_dir():
        return f"{place}: no such file or folder"
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in READ_SUFFIXES and path.is_file())
    root = place.resolve()
    pictures = [
        Picture(str(root / path.relative_to(place)), PurePosixPath(path.relative_to(place).as_posix()), str(path))
        for path in files
    ]
    if not pictures:
        return f"{place}: holds no images ({', '.join(sorted(READ_SUFFIXES))})"
    drawn = out.resolve() if out else None
    kept = [picture for picture in pictures if drawn is None or not Path(picture.source).is_relative_to(drawn)]
    return kept or f"{place}: holds no images but what lies below --out {out}; choose another --out"


def _in_bucket(place: str) -> list[Picture] | str:
    from ray_jobs.storage.objects import list_objects

    root = place.rstrip("/")
    # Keys may hold .. or start with /: of such a key only what cannot lead out of a folder becomes a name.
    pictures = [
        Picture(url, PurePosixPath(*_harmless(url.removeprefix(root)) or _harmless(url.rpartition("/")[2])), url)
        for url in list_objects(place, READ_SUFFIXES)
    ]
    return pictures or f"{place}: holds no images ({', '.join(sorted(READ_SUFFIXES))})"


def _harmless(key: str) -> list[str]:
    return [part for part in key.split("/") if part not in ("", ".", "..")]
