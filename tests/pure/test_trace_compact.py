"""Small segments joined at a recording's end: the same rows in the same order, or left alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sltrace.errors import TraceError
from sltrace.trace import compact
from sltrace.trace.reader import Trace
from sltrace.trace.writer import TraceWriter
from tests.support.traces import META, make_trace


@pytest.fixture(autouse=True)
def _bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "MANY", 12)
    monkeypatch.setattr(compact, "SMALL", 50)


@pytest.fixture
def long(tmp_path: Path) -> TraceWriter:
    """A trace of 20 segments, each with a dictionary of its own; one is large."""
    sizes = [50 if n == 11 else 1 + n % 7 for n in range(20)]
    rows = [{"wait_ns": 1 + i} for i in range(max(sizes))]
    whole = Trace.open(make_trace(tmp_path, rows)).table("waits")
    at = whole.column_names.index("comm")
    writer = TraceWriter.create(tmp_path / "long.slt", META)
    for number, size in enumerate(sizes):
        comms = pa.array([f"{number}"] * size).dictionary_encode()
        writer.append("waits", whole.slice(0, size).set_column(at, "comm", comms))
    return writer


def rows_of(path: Path) -> list[tuple[int, str]]:
    table = Trace.open(path).table("waits", ["wait_ns", "comm"])
    return list(zip(*(table.column(n).to_pylist() for n in ("wait_ns", "comm")), strict=True))


def test_small_segments_are_joined(long: TraceWriter) -> None:
    before = rows_of(long.path)
    large = (long.path / "waits" / "000011.parquet").stat().st_ino
    compact.compact(long)
    files = sorted((long.path / "waits").iterdir())
    assert [f.name for f in files] == [f"00000{i}.parquet" for i in range(3)]
    assert files[1].stat().st_ino == large
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert rows_of(long.path) == before
    assert Trace.open(long.path).damage == []
    long.close()
    assert not [p for p in long.path.iterdir() if p.name.startswith(".")]


def test_rows_are_cut_into_files_of_a_bounded_size(long: TraceWriter) -> None:
    before = rows_of(long.path)
    with mock.patch.multiple(compact, _GROUP=10, _ROWS=20):
        compact.compact(long)
    files = sorted((long.path / "waits").iterdir())
    assert [pq.read_metadata(f).num_rows for f in files] == [21, 17, 50, 23, 11]
    assert rows_of(long.path) == before


def test_segments_of_few_rows_do_not_all_wait_in_memory(long: TraceWriter) -> None:
    """20,000 of 10 rows took 126 MB."""
    before = rows_of(long.path)
    with mock.patch.object(compact, "_PIECES", 3):
        compact.compact(long)
    files = sorted((long.path / "waits").iterdir())
    assert [pq.read_metadata(f).num_row_groups for f in files] == [4, 1, 3]
    assert rows_of(long.path) == before


def test_segments_that_a_reader_removed_are_not_missed(long: TraceWriter) -> None:
    segments = list(long.segments("waits"))
    assert segments == sorted((long.path / "waits").iterdir())
    segments[3].unlink()
    assert list(long.segments("waits")) == segments[:3] + segments[4:]
    compact.compact(long)
    assert len(list((long.path / "waits").iterdir())) == 3


def test_a_few_segments_stay(tmp_path: Path) -> None:
    rows = Trace.open(make_trace(tmp_path, [{"wait_ns": 1}])).table("waits")
    writer = TraceWriter.create(tmp_path / "few.slt", META)
    for _ in range(2):
        writer.append("waits", rows)
    before = [file.stat().st_ino for file in writer.segments("waits")]
    compact.compact(writer)
    assert [file.stat().st_ino for file in writer.segments("waits")] == before


def test_a_disk_is_not_filled_for_it(long: TraceWriter) -> None:
    before = rows_of(long.path)
    size = sum(file.stat().st_size for file in (long.path / "waits").iterdir())
    free = long.folder._spare + size
    with mock.patch("sltrace.trace.folder._free", return_value=free - 1):
        compact.compact(long)
    assert len(list((long.path / "waits").iterdir())) == 20
    with mock.patch("sltrace.trace.folder._free", return_value=free):
        compact.compact(long)
    assert len(list((long.path / "waits").iterdir())) == 3
    assert rows_of(long.path) == before


@pytest.mark.parametrize("failing", ["os.link", "sltrace.trace.compact._exchange"])
def test_what_cannot_be_joined_stays_as_it_is(long: TraceWriter, failing: str) -> None:
    before, names = rows_of(long.path), sorted((long.path / "waits").iterdir())
    with mock.patch(failing, side_effect=OSError("no")):
        compact.compact(long)
    assert sorted((long.path / "waits").iterdir()) == names
    assert rows_of(long.path) == before
    long.close()
    assert not [p for p in long.path.iterdir() if p.name.startswith(".")]


def test_a_reader_never_takes_joined_segments_for_damage(long: TraceWriter) -> None:
    """Whether they are joined once their names are known, or once they were looked at."""
    before = rows_of(long.path)
    trace = Trace.open(long.path)
    batches = Trace.open(long.path)
    begun = Trace.open(long.path).batches("SELECT * FROM waits", 1)
    next(begun)
    listed = Path.glob

    def joined(path: Path, pattern: str) -> list[Path]:
        names = list(listed(path, pattern))
        if path.name == "waits":
            reading.stop()
            compact.compact(long)
        return names

    reading = mock.patch.object(Path, "glob", joined)
    reading.start()
    late = Trace.open(long.path)
    assert late.damage == []
    assert late.table("waits").num_rows == len(before)
    assert trace.table("waits", ["wait_ns"])["wait_ns"].to_pylist() == [ns for ns, _ in before]
    assert sum(b.num_rows for b in batches.batches("SELECT * FROM waits", 7)) == len(before)
    # The rest of what was begun is in memory already, or cannot be had any more.
    try:
        why, count = "", 1 + sum(b.num_rows for b in begun)
    except TraceError as err:
        why, count = err.message, 0
    assert count == len(before) or why.endswith("changed while it was read")


def test_a_reader_never_takes_joined_segments_for_those_it_listed(long: TraceWriter) -> None:
    """They have the same names."""
    segments = list(long.segments("waits"))
    hidden = [s.rename(s.with_suffix(".later")) for s in segments[2:]]
    trace = Trace.open(long.path)
    batches = Trace.open(long.path)
    assert trace.table("waits").num_rows == 3
    for later, segment in zip(hidden, segments[2:], strict=True):
        later.rename(segment)
    compact.compact(long)
    wanted = len(rows_of(long.path))
    assert trace.table("waits").num_rows == wanted
    assert sum(b.num_rows for b in batches.batches("SELECT * FROM waits", 7)) == wanted


def test_a_trace_that_was_removed_is_gone(long: TraceWriter) -> None:
    trace = Trace.open(long.path)
    shutil.rmtree(long.path)
    with pytest.raises(TraceError, match="does not exist"):
        trace.table("waits")
