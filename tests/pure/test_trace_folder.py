"""A trace that is being written is nobody else's to replace."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from sltrace.errors import OutputError
from sltrace.trace.folder import TraceFolder
from sltrace.trace.writer import TraceWriter
from tests.support.programs import ROOT
from tests.support.traces import META

_MESSAGE = "is being written by another sltrace; let that end, or choose another -o"


def test_a_trace_that_is_being_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "busy.slt"
    writer = TraceWriter.create(path, META)
    before = (path / "meta.json").read_bytes()
    with pytest.raises(OutputError, match=_MESSAGE):
        TraceWriter.create(path, META, force=True)
    assert (path / "meta.json").read_bytes() == before
    writer.close()
    TraceWriter.create(path, META, force=True).close()


def test_a_trace_that_cannot_be_begun_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TraceFolder, "replace", full)
    path = tmp_path / "full.slt"
    message = "No space left on device; free some space, or choose another -o"
    with pytest.raises(OutputError, match=message):
        TraceWriter.create(path, META)
    assert not path.exists()


def test_a_trace_whose_writer_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "killed.slt"
    code = (
        "import os, sys; from pathlib import Path; from sltrace.trace.writer import TraceWriter; "
        "writer = TraceWriter.create(Path(sys.argv[1]), {}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=True)
    TraceWriter.create(path, META, force=True).close()


def test_there_is_room_to_say_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is said: times of each CPU alone are 190 bytes."""
    writer = TraceWriter.create(tmp_path / "a.slt", META)
    room, meta = writer.path / ".room", writer.path / "meta.json"
    taken = [room.stat().st_size]
    for cpus in (10, 300, 200, 400):
        writer.update_meta(cpu_times={str(cpu): "x" * 180 for cpu in range(cpus)})
        taken.append(room.stat().st_size)
        assert room.stat().st_size >= 2 * meta.stat().st_size
    assert taken[0] == taken[1] < taken[2] == taken[3] < taken[4]
    assert room.stat().st_blocks * 512 >= taken[4]
    # What is said in the end takes that room, and asks for no more.
    with monkeypatch.context() as patch:
        patch.setattr(TraceFolder, "reserve", Mock(side_effect=AssertionError))
        writer.cut_short()
    assert not room.exists()
    whole = TraceWriter.create(tmp_path / "b.slt", META)
    with monkeypatch.context() as patch:
        patch.setattr(TraceFolder, "reserve", Mock(side_effect=AssertionError))
        whole.close()


def test_what_a_reader_has_removed_counts_no_more(tmp_path: Path) -> None:
    rows = pa.table({"wait_ns": np.random.default_rng(1).integers(1, 1 << 62, 10_000)})
    writer = TraceWriter.create(tmp_path / "live.slt", META)
    writer.append("waits", rows)
    writer.append("waits", rows)
    (first, second) = (tmp_path / "live.slt" / "waits").glob("*.parquet")
    size = first.stat().st_size
    assert writer.folder.holds(2 * size)
    assert not writer.folder.holds(2 * size + 1)
    first.unlink()
    assert not writer.folder.holds(2 * size)
    assert writer.folder.holds(size)
    writer.append("waits", rows)
    assert writer.folder.holds(second.stat().st_size + size)
    writer.close()
