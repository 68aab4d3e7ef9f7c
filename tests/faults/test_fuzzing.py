"""Any bytes where a file is expected give a valid result or one of this project's errors: no traceback, no hang, and
no more than a gigabyte of memory."""

import json
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_jobs.dataset.description import DataDescription, read_description
from ray_jobs.dataset.labels import parse_labels
from ray_jobs.detector.training_state import load_state
from ray_jobs.errors import BadInput, PlatformError, SettingsError
from ray_jobs.flows.checkpoints import EXPERIMENT, MANIFEST, fetch_checkpoint
from ray_jobs.flows.journal import JournalReader
from ray_jobs.flows.ownership import OWNER, claim_storage
from ray_jobs.flows.run_folder import STATE, RunFolder
from ray_jobs.settings import Settings, load_config_with_defaults
from ray_jobs.storage import FolderStorage

MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

KEYS = [*Settings.model_fields, "address", "num_workers", "url", "uri", "path", "train", "val", "names", "nc", "0"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["../x", "/", "~", "s3://", "images/train", "1e999", "0x10", "!!python/name:os.system"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8)
YAML_TEXT = MAPPINGS.map(json.dumps) | st.text(alphabet="ab:- \n\t[]{}&*!|>'\"#%@`,?0123.~<=", max_size=200)
ANY_BYTES = YAML_TEXT.map(str.encode) | st.binary(max_size=300)

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
"""A kilobyte of aliases that stands for ten thousand million values."""


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """What the whole module may add to the process's memory: one gigabyte, and Linux counts what was ever in use."""
    import torch  # noqa: F401 - not part of what is measured

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 1024


def written(data: bytes, use: Callable[[Path], object], name: str = "file") -> object:
    """What ``use`` makes of a file with these bytes, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return use(path)


def refused_or(kind: type[PlatformError], use: Callable[[], object]) -> object:
    """What ``use`` returns; None where it refused with an error of ``kind`` that says something."""
    try:
        return use()
    except kind as error:
        message = str(error)
    assert message.strip()
    return None


@MANY
@given(ANY_BYTES)
def test_settings(data: bytes) -> None:
    found = written(data, lambda path: refused_or(SettingsError, lambda: load_config_with_defaults(path)))

    assert found is None or isinstance(found, Settings)


@MANY
@given(st.lists(st.text(max_size=30) | st.tuples(st.sampled_from(KEYS), SCALARS).map(lambda kv: f"{kv[0]}={kv[1]}")))
def test_overrides(overrides: list[str]) -> None:
    found = refused_or(SettingsError, lambda: load_config_with_defaults(None, overrides))

    assert found is None or isinstance(found, Settings)


@MANY
@given(ANY_BYTES)
def test_data_yaml(data: bytes) -> None:
    found = written(data, lambda path: refused_or(BadInput, lambda: read_description(path)))

    assert found is None or isinstance(found, DataDescription)


@pytest.mark.parametrize("read", [load_config_with_defaults, read_description])
def test_a_kilobyte_of_aliases_is_refused(read: Callable[[Path], object]) -> None:
    with pytest.raises(BadInput, match="alias"):
        written(BOMB.encode(), read)


@MANY
@given(st.binary(max_size=300) | st.text(alphabet="0123456789.-+e \nnaif_", max_size=200).map(str.encode))
def test_labels(data: bytes) -> None:
    description = DataDescription(Path("data.yaml"), Path(), ("Nodule", "Mass"), {}, dropped_class=1)

    labels = parse_labels(data, description)

    assert labels.boxes.shape[1] == 5
    assert ((labels.boxes >= 0) & (labels.boxes <= 1)).all()


def as_json(values: st.SearchStrategy[object]) -> st.SearchStrategy[bytes]:
    return values.map(json.dumps).map(str.encode)


JSON_BYTES = as_json(VALUES) | st.binary(max_size=100)
NAMES = st.sampled_from(["state.pt", "../state.pt", "/etc/passwd", "a/../../b", "", ".", "..", "\0", "x" * 300])
MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        "epoch": VALUES,
        "last": VALUES,
        "batch_size": VALUES,
        "files": VALUES | st.dictionaries(NAMES, st.text(max_size=70)),
    },
)


@FEW
@given(JSON_BYTES | as_json(MANIFESTS))
def test_manifest_of_a_checkpoint(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place, target = Path(folder) / "storage" / EXPERIMENT / "epoch_00001", Path(folder) / "a" / "b" / "fetched"
        place.mkdir(parents=True)
        (place / MANIFEST).write_bytes(data)
        (place / "state.pt").write_bytes(b"state")

        storage = FolderStorage(Path(folder) / "storage")
        refused_or(PlatformError, lambda: fetch_checkpoint(storage, "epoch_00001", target))

        outside = [path for path in (Path(folder) / "a").rglob("*") if path.is_file() and target not in path.parents]
        assert outside == []


@FEW
@given(JSON_BYTES)
def test_owner_of_a_storage(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / OWNER).write_bytes(data)

        refused_or(PlatformError, lambda: claim_storage(FolderStorage(Path(folder)), "mine"))

        assert (Path(folder) / OWNER).read_bytes() == data


@FEW
@given(
    JSON_BYTES
    | st.dictionaries(st.sampled_from(["status", "uid", "fingerprint"]), VALUES).map(json.dumps).map(str.encode)
)
def test_state_of_a_run(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.path.joinpath(STATE).write_bytes(data)
        Settings().save(run.settings)

        refused_or(PlatformError, lambda: run.check_free(Settings(), "fingerprint"))

        assert run.path.joinpath(STATE).read_bytes() == data


LINES = st.lists(
    JSON_BYTES | st.fixed_dictionaries({"kind": st.just("epoch"), "metrics": VALUES}).map(json.dumps).map(str.encode)
)


@FEW
@given(LINES)
def test_journal_of_a_run(lines: list[bytes]) -> None:
    good = {"kind": "epoch", "time": 2.0, "weights_digests": ["a"], "metrics": {"epoch": 1, "started": 1.0}}

    def epochs(path: Path) -> list[int]:
        reader = JournalReader(path)
        list(reader.read_new())
        return [epoch.number for epoch in reader.epochs]

    found = written(b"\n".join([*lines, json.dumps(good).encode(), b""]), epochs)

    assert found == [1]


@FEW
@given(st.binary(max_size=200))
def test_training_state(data: bytes) -> None:
    assert written(data, lambda path: refused_or(BadInput, lambda: load_state(path))) is None
