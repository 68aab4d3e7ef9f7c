"""A data set from a bucket on this node's disk: copied once, whole, and the same bytes as in the bucket.

Comes in: ``s3://bucket/prefix``. Goes out: a folder that is read like any other data set. Every node makes its own.

    <data_cache>/chest-3f9a1c0b7d21/chest/...    the files, read-only, each there as a whole or not at all
    <data_cache>/chest-3f9a1c0b7d21/...          what was listed, what arrived and with which SHA-256, locks

The name ends in the digest of the listing (names, sizes, ETags): a data set that changed is another copy, which takes
over what is the same. One process of a node copies and the others wait.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ray_jobs.dataset.copies import alone, make_room, use
from ray_jobs.dataset.parallel import map_in_threads
from ray_jobs.errors import PlatformError, StorageError
from ray_jobs.storage import sha256_of
from ray_jobs.storage.bucket_folder import CONNECTIONS, BucketFolder, RemoteFile, open_bucket_folder

Say = Callable[[str], None]

_LARGE = 1 << 30  # bytes from which on verifying is shown
TRUSTED_FOR_S = 24 * 3600  # after that, or a new boot, workers compare every hash again; drivers always do


@dataclass(frozen=True)
class Origin:
    """Where a copy comes from: the address, the digest of its listing, and its folder, the same on every node.

    ``copied``: the bytes that the driver fetched for it; 0 where its node had them.
    """

    url: str
    digest: str
    folder: Path
    copied: int = field(default=0, compare=False)

    @property
    def files(self) -> Path:
        """The folder of the data set itself, named like the last part of the address."""
        return self.folder / self.folder.name.rpartition("-")[0]


@dataclass(frozen=True)
class _Arrived:
    """A file of the copy: what the store called it, what it holds, and when it was written."""

    name: str
    size: int
    etag: str
    sha256: str
    mtime_ns: int


def default_cache() -> Path:
    """Where copies lie unless the settings say otherwise: XRAY_DATA_CACHE, else a folder of the user's cache."""
    if given := os.environ.get("XRAY_DATA_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xray-ray" / "datasets"


def copy_here(url: str, cache: Path, say: Say = print, listing: tuple[RemoteFile, ...] | None = None) -> Origin:
    """Bring the data set as it is now in the bucket to this node, every hash compared; what the driver calls.

    Raises ``DataError`` for an address or objects that cannot be used, ``StorageError`` for a disk that is too small or
    a folder that cannot be written to, ``PlatformError`` for a store that goes away while it is read.
    """
    bucket = open_bucket_folder(url)
    listing = listing or bucket.listing()
    digest = _digest(bucket.url, listing)
    name = (bucket.prefix or bucket.bucket).rpartition("/")[2]
    origin = Origin(bucket.url, digest, cache.absolute() / f"{'data' if name == 'images' else name}-{digest[:12]}")
    return replace(origin, copied=_bring(origin, bucket, listing, say, trust=False))


def bring_here(origin: Origin, say: Say = print) -> int:
    """Bring the data set that the driver has checked to this node; what every worker calls. Returns the bytes fetched.

    Asks the bucket for nothing where the copy is whole. Raises as ``copy_here`` does, and ``PlatformError`` where the
    bucket holds something else by now.
    """
    return _bring(origin, open_bucket_folder(origin.url), None, say, trust=True)


def _bring(origin: Origin, bucket: BucketFolder, listing: tuple[RemoteFile, ...] | None, say: Say, trust: bool) -> int:
    try:
        use(origin.folder)
        with alone(origin.folder / "lock", lambda: say(f"waiting for another process that copies {origin.url}")):
            copy = _Copy(origin)
            return copy.complete(bucket, listing or copy.listed() or _same_listing(bucket, origin), say, trust)
    except OSError as error:
        raise StorageError(
            f"{origin.folder}: cannot be written to: {error.strerror or error}; set storage.data_cache (or "
            "XRAY_DATA_CACHE) to a folder that every node can write to"
        ) from None


def _digest(url: str, listing: tuple[RemoteFile, ...]) -> str:
    text = json.dumps([url, [[file.name, file.size, file.etag] for file in listing]])
    return hashlib.sha256(text.encode()).hexdigest()


def _same_listing(bucket: BucketFolder, origin: Origin) -> tuple[RemoteFile, ...]:
    listing = bucket.listing()
    if _digest(bucket.url, listing) != origin.digest:
        raise PlatformError(f"{origin.url}: changed since this run checked it, and this node has no copy; start again")
    return listing


class _Copy:
    """The copy in ``origin.folder``, of which the calling process has the lock."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._listing = origin.folder / "listing.json"
        self._journal = origin.folder / "journal.jsonl"
        self._verified = origin.folder / "verified"
        self._write = threading.Lock()

    def listed(self) -> tuple[RemoteFile, ...]:
        """The listing that the copy was begun with; empty where there is none."""
        if not self._listing.exists():
            return ()
        return tuple(RemoteFile(*row) for row in json.loads(self._listing.read_text(encoding="utf-8")))

    def complete(self, bucket: BucketFolder, listing: tuple[RemoteFile, ...], say: Say, trust: bool) -> int:
        """Fetch what is missing or is not what it should be; returns its bytes."""
        if not self._listing.exists():
            rows = [[file.name, file.size, file.etag] for file in listing]
            _write_whole(self._listing, json.dumps(rows))
            self._take_over()
        quick = trust and self._trusted()
        missing = self._missing(listing, quick)
        if missing:
            self._verified.unlink(missing_ok=True)
            self._fetch(bucket, missing, len(listing), say)
        if missing or not quick:
            _write_whole(self._verified, _boot())
        return sum(file.size for file in missing)

    def _trusted(self) -> bool:
        try:
            lately = time.time() - self._verified.stat().st_mtime < TRUSTED_FOR_S
            return lately and self._verified.read_text(encoding="utf-8") == _boot()
        except FileNotFoundError:
            return False

    def _missing(self, listing: tuple[RemoteFile, ...], quick: bool) -> list[RemoteFile]:
        """What is not there as the store has it; ``quick`` looks at sizes and times instead of hashes."""
        arrived = self._arrived()

        def intact(file: RemoteFile) -> bool:
            known, path = arrived.get(file.name), self.origin.files / file.name
            try:
                state = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            if known is None or (known.etag, known.size, file.size) != (file.etag, state.st_size, state.st_size):
                return False
            return state.st_mtime_ns == known.mtime_ns if quick else sha256_of(path) == known.sha256

        large = not quick and sum(file.size for file in listing) > _LARGE
        found = map_in_threads(intact, listing, None, f"verifying the copy of {self.origin.url}" if large else None)
        return [file for file, whole in zip(listing, found, strict=True) if not whole]

    def _fetch(self, bucket: BucketFolder, missing: list[RemoteFile], total: int, say: Say) -> None:
        files, parts = self.origin.files, self.origin.folder / "parts"
        files.mkdir(mode=0o700, exist_ok=True)
        parts.mkdir(mode=0o700, exist_ok=True)
        needed = sum(file.size for file in missing) - sum(part.stat().st_size for part in parts.iterdir())
        make_room(self.origin.folder.parent, needed, self.origin.url)
        give_up = threading.Event()
        size = f"{sum(file.size for file in missing) / 1e6:,.0f} MB"
        say(f"copying {len(missing):,} of {total:,} files ({size}) from {self.origin.url} to {files}")

        def fetch(file: RemoteFile) -> None:
            part = parts / hashlib.sha256(f"{file.name}\n{file.etag}".encode()).hexdigest()
            digest = bucket.fetch(file, part, give_up)
            part.chmod(0o400)
            target = files / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            self._note(_Arrived(file.name, file.size, file.etag, digest, target.stat().st_mtime_ns))

        map_in_threads(fetch, missing, CONNECTIONS, f"copying {self.origin.url}", 1, give_up)
        shutil.rmtree(parts)

    def _take_over(self) -> None:
        """Link what an older copy of the same data set has. The hashes are compared afterwards, as always."""
        wanted = {file.name: file for file in self.listed()}
        for journal in self.origin.folder.parent.glob("*/journal.jsonl"):
            older = _Copy(Origin(self.origin.url, "", journal.parent))
            if older.origin.folder == self.origin.folder or older.origin.files.name != self.origin.files.name:
                continue
            for name, known in older._arrived().items():
                file = wanted.get(name)
                if file and (file.size, file.etag) == (known.size, known.etag):
                    target = self.origin.files / name
                    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    try:
                        os.link(older.origin.files / name, target, follow_symlinks=False)
                    except OSError:  # not there any more, or taken from another copy: it is fetched, or it is there
                        continue
                    self._note(known)

    def _arrived(self) -> dict[str, _Arrived]:
        if not self._journal.exists():
            return {}
        arrived = {}
        for line in self._journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = _Arrived(**json.loads(line))
            except (ValueError, TypeError):  # cut short by a kill
                continue
            arrived[entry.name] = entry
        return arrived

    def _note(self, entry: _Arrived) -> None:
        with self._write, self._journal.open("a", encoding="utf-8") as journal:
            journal.write("\n" + json.dumps(asdict(entry)))


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _boot() -> str:
    """A name of this boot: after a power cut, a file may be there and its content not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return ""
