"""The spool: whole records or none, whatever the writer died of."""

import resource
import signal
from pathlib import Path

import pytest

from ray_jobs.errors import BadInput
from ray_jobs.tracking.spool import Cursor, CursorFile, Spool, read_spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tracking" / "spool.jsonl"


def test_records_come_back_in_order_with_the_offsets_where_they_end(path: Path) -> None:
    spool = Spool(path)
    for number in range(3):
        spool.append({"kind": "tags", "number": number})
    read = list(read_spool(path))
    assert [record["number"] for record, _ in read] == [0, 1, 2]
    assert [record["number"] for record, _ in read_spool(path, offset=read[0][1])] == [1, 2]
    spool.close()


def test_a_truncated_last_line_is_not_seen_and_the_next_writer_cuts_it_off(path: Path) -> None:
    spool = Spool(path)
    spool.append({"kind": "tags", "number": 0})
    spool.close()
    with path.open("ab") as file:
        file.write(b'{"kind":"metr')
    assert len(list(read_spool(path))) == 1
    spool = Spool(path)
    spool.append({"kind": "tags", "number": 1})
    spool.close()
    assert [record["number"] for record, _ in read_spool(path)] == [0, 1]


def test_a_file_of_one_truncated_line_becomes_empty(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * 200_000)
    Spool(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("line", [b"\x00\xff garbage", b"[1, 2]", b'{"no": "kind"}'])
def test_damage_in_the_middle_is_named_with_its_place(path: Path, line: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"kind":"tags"}\n' + line + b'\n{"kind":"tags"}\n')
    with pytest.raises(BadInput, match=r"spool\.jsonl: damaged at byte 16"):
        list(read_spool(path))


def test_a_record_that_does_not_fit_on_the_disk_leaves_the_file_as_it_was(path: Path) -> None:
    spool = Spool(path)
    spool.append({"kind": "tags", "text": "fits"})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of files is the nearest thing to a full disk that a test may do to its own process.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        with pytest.raises(OSError, match=r"too large|did not fit"):
            spool.append({"kind": "tags", "text": "x" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    spool.append({"kind": "tags", "text": "fits again"})
    spool.close()
    assert len(list(read_spool(path))) == 2


def test_each_server_has_a_cursor_of_its_own(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "cursor.json")
    file.save("http://a", Cursor(offset=10, records=2, run_id="r", experiment_id="1"))
    file.save("http://b", Cursor(offset=5, records=1))
    assert file.load("http://a") == Cursor(offset=10, records=2, run_id="r", experiment_id="1")
    assert file.load("http://c") == Cursor()
    assert file.servers() == ["http://a", "http://b"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"http://a": {"unknown": 1}}', '{"http://a": 3}'])
def test_a_damaged_cursor_begins_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "cursor.json").write_text(text)
    file = CursorFile(tmp_path / "cursor.json")
    assert file.load("http://a") == Cursor()
    file.save("http://a", Cursor(offset=1))
    assert file.load("http://a").offset == 1
