"""sltrace.trace.disk: work on files that may stall or fail."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from sltrace.errors import OutputError
from sltrace.trace import disk
from sltrace.trace.disk import Disk
from sltrace.trace.reader import Trace
from sltrace.trace.writer import TraceWriter
from tests.support.traces import META, make_trace

_PATIENCE_S = 20


def _explained(err: OSError) -> OutputError:
    return OutputError(f"cannot write: {err.strerror}", "free some space")


def test_all_is_done_in_order_and_by_the_end() -> None:
    done: list[int] = []
    on = Disk(_explained)
    with on.aside():
        for i in range(1000):
            on.do(lambda i=i: done.append(i))  # type: ignore[misc]
    assert done == list(range(1000))


def test_whoever_asks_does_not_wait_for_a_stall() -> None:
    goes_on, done = threading.Event(), threading.Event()
    on = Disk(_explained)
    with on.aside():
        on.do(lambda: goes_on.wait(_PATIENCE_S))
        on.do(done.set, disk.ROOM // 2)
        assert not done.is_set()
        goes_on.set()
    assert done.is_set()


def test_what_waits_is_bounded() -> None:
    goes_on, asked = threading.Event(), threading.Event()
    on = Disk(_explained)

    def ask() -> None:
        on.do(lambda: None, disk.ROOM)
        asked.set()

    with on.aside():
        on.do(lambda: goes_on.wait(_PATIENCE_S))
        # More than there is room for is taken as long as nothing else waits.
        on.do(lambda: None, 2 * disk.ROOM)
        other = threading.Thread(target=ask)
        other.start()
        assert not asked.wait(0.1)
        goes_on.set()
        other.join()
    assert asked.is_set()


def test_after_a_failure_nothing_is_done() -> None:
    failed, done = threading.Event(), threading.Event()
    on = Disk(_explained)

    def fail() -> None:
        failed.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    def use() -> None:
        with on.aside():
            on.do(fail)
            on.do(done.set)
            failed.wait(_PATIENCE_S)

    with pytest.raises(OutputError, match="No space"):
        use()
    with pytest.raises(OutputError, match="No space"):
        on.do(done.set)
    assert not done.is_set()


def test_a_defect_ends_it_too() -> None:
    on = Disk(_explained)

    def use() -> None:
        with on.aside():
            on.do(lambda: [].pop())
            on.do(lambda: None, 2 * disk.ROOM)

    with pytest.raises(IndexError):
        use()


@pytest.mark.parametrize("segment", [0, 1])
def test_a_segment_that_lacks_a_part_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment: int
) -> None:
    rows = Trace.open(make_trace(tmp_path, [{"end_ns": 5, "wait_ns": 2}])).table("waits")
    path = tmp_path / "full.slt"
    writer = TraceWriter.create(path, META)

    def record() -> None:
        with writer.aside():
            for number in range(3):
                if number == segment:
                    writer.folder.disk.do(lambda: monkeypatch.setattr("builtins.open", _full))
                writer.append("waits", rows)

    with pytest.raises(OutputError, match="No space left"):
        record()
    monkeypatch.undo()
    trace = Trace.open(path)
    assert trace.table("waits").num_rows == segment
    assert [note for note in trace.notes if "damaged" in note] == []


def _full(path: Path, *_: object, **__: object) -> object:
    raise OSError(errno.ENOSPC, "No space left on device")
