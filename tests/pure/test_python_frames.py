"""Stacks of code objects become named frames, also where code makes room for other code."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from sltrace.capture.python import codes
from sltrace.capture.python.frames import UNREADABLE, FrameTable
from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.code import MAX_TABLE
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.layout import CODE_BYTES, layout_for

_LAYOUT = layout_for(12, b"")
_TYPE = 0x7000
_FRAME = np.dtype([("code", "<u8"), ("instr", "<u8")])
_STACK = np.dtype([("id", "<u8"), ("pid", "<u4"), ("depth", "<u4"), ("frames", _FRAME, (4,))])
_COROUTINE = 0x80


class Heap(Memory):
    """A process with code objects where the test wants them."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._free = 0x100000
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        for start, piece in self._pieces.items():
            if start <= address and address + size <= start + len(piece):
                return piece[address - start : address - start + size]
        raise Unreadable("nothing there")

    def close(self) -> None:
        return

    def put(self, address: int, name: str, line: int = 1, flags: int = 0, table: int = 2) -> None:
        """A code object of one line, in FILE.py of its name; `table` bytes tell of that line."""
        raw = bytearray(CODE_BYTES)
        struct.pack_into("<Q", raw, 8, _TYPE)
        for at, value in (
            (_LAYOUT.name, self._text(name)),
            (_LAYOUT.filename, self._text(f"/srv/{name}.py")),
            (_LAYOUT.linetable, self._bytes(bytes([0x80 | 10 << 3 | 7, 0]) * (table // 2))),
        ):
            struct.pack_into("<Q", raw, at, value)
        struct.pack_into("<i", raw, _LAYOUT.first_line, line)
        struct.pack_into("<I", raw, _LAYOUT.flags, flags)
        self._pieces[address] = bytes(raw)

    def remove(self, address: int) -> None:
        del self._pieces[address]

    def _add(self, raw: bytes) -> int:
        at, self._free = self._free, self._free + 256 + len(raw)
        self._pieces[at] = raw
        return at

    def _text(self, text: str) -> int:
        head = bytearray(40)
        struct.pack_into("<Q", head, 16, len(text))
        head[32] = 0b11001 << 2  # one byte a character, compact, ASCII
        return self._add(bytes(head) + text.encode())

    def _bytes(self, raw: bytes) -> int:
        return self._add(struct.pack("<16xQ8x", len(raw)) + raw)


class Watched:
    """A table, the stacks that it was given, and what it made of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        python = Interpreter("3.12", "", "", "", 0, _LAYOUT, 0, 0, 0, 1, _TYPE)
        self.heap = Heap()
        self.tasks: dict[int, str] = {}
        self.table = FrameTable(lambda pid: [(self.heap, python)], self.tasks)
        self._names: dict[int, tuple[str, int | None]] = {}
        self._now = 1
        monkeypatch.setattr("time.monotonic_ns", lambda: self._now)

    def later(self) -> None:
        self._now += codes.LOT_NS + 1

    def add(self, *stacks: tuple[int, list[int]], pid: int = 1) -> dict[int, list[Any]]:
        """Names and lines of each new stack's frames, by its id; its frames are code objects."""
        records = np.zeros(len(stacks), _STACK)
        for record, (number, held) in zip(records, stacks, strict=True):
            record["id"], record["pid"], record["depth"] = number, pid, len(held)
            record["frames"]["code"][: len(held)] = held
            record["frames"]["instr"][: len(held)] = [h + _LAYOUT.code_start for h in held]
        made, frames = self.table.add(records)
        for row in frames.to_pylist():
            assert row["address"] not in self._names
            self._names[row["address"]] = row["name"], row["line"]
        return {
            row["stack_id"]: [self._names[a] for a in row["addresses"]] for row in made.to_pylist()
        }


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_each_stack_and_each_place_is_told_once(watched: Watched) -> None:
    watched.heap.put(0x1000, "outer", 10)
    watched.heap.put(0x2000, "inner", 20)
    inner, outer = ("inner", 20), ("outer", 10)
    assert watched.add((1, [0x2000, 0x1000]), (1, [0x2000, 0x1000])) == {1: [inner, outer]}
    reads = watched.heap.reads
    assert watched.add((1, [0x2000, 0x1000]), (2, [0x1000])) == {2: [outer]}
    # Checked a moment ago.
    assert watched.heap.reads == reads
    assert watched.add((3, [0x1000]), pid=2) == {3: [outer]}


def test_other_code_at_the_same_address_is_not_taken_for_the_first(watched: Watched) -> None:
    watched.heap.put(0x1000, "first", 10)
    assert watched.add((1, [0x1000])) == {1: [("first", 10)]}
    watched.heap.put(0x1000, "second", 20)
    watched.later()
    assert watched.add((2, [0x1000])) == {2: [("second", 20)]}
    watched.heap.remove(0x1000)
    watched.later()
    assert watched.add((3, [0x1000]), (4, [0x1000])) == {
        3: [(UNREADABLE, None)],
        4: [(UNREADABLE, None)],
    }
    assert watched.table.unreadable == 1
    watched.heap.put(0x1000, "third", 30)
    watched.later()
    assert watched.add((5, [0x1000])) == {5: [("third", 30)]}


def test_code_that_was_replaced_is_noticed_without_a_new_stack(watched: Watched) -> None:
    for number in range(3 * codes.SPOT_CHECKS):
        watched.heap.put(0x1000 + 0x1000 * number, f"f{number}", number)
    every = [0x1000 + 0x1000 * number for number in range(3 * codes.SPOT_CHECKS)]
    watched.add(*((number + 1, [address]) for number, address in enumerate(every)))
    looks = []
    for change in (None, every[-1], None, every[5]):
        if change:
            watched.heap.put(change, "other", 7)
        for _ in range(3):
            watched.later()
            looks.append(watched.table.check_some({1}))
    assert looks.count({1}) == 2
    assert watched.table.replaced == 2
    assert watched.add((1000, [every[5]])) == {1000: [("other", 7)]}
    # What is gone is noticed too, as other code may come there.
    watched.heap.remove(every[6])
    for _ in range(3):
        watched.later()
        looks.append(watched.table.check_some({1}))
    assert looks.count({1}) == 3
    assert (watched.table.replaced, watched.table.unreadable) == (2, 0)
    # Of processes that are gone nothing is looked at.
    watched.later()
    assert watched.table.check_some(set()) == set()


def test_code_that_a_new_stack_shows_to_be_replaced_renews_the_stacks_before(
    watched: Watched,
) -> None:
    """Those in which it is at the same place: they are not handed over again by themselves."""
    watched.heap.put(0x1000, "first", 10)
    watched.add((1, [0x1000]))
    watched.heap.put(0x1000, "second", 20)
    watched.later()
    assert watched.add((2, [0x1000])) == {2: [("second", 20)]}
    watched.later()
    assert watched.table.check_some({1}) == {1}
    watched.later()
    assert watched.table.check_some({1}) == set()


def test_what_is_read_again_is_looked_at_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is given up while it is looked at one process after the other."""
    watched.heap.put(0x1000, "first", 10)
    watched.add((1, [0x1000]), pid=1)
    watched.add((2, [0x1000]), pid=2)
    assert watched.table.check_some({1, 2}) == set()
    monkeypatch.setattr(codes, "MAX_BYTES", 1)
    assert watched.table.check_some({1, 2}) == set()


def test_a_task_is_the_outermost_coroutine_of_a_whole_stack(watched: Watched) -> None:
    watched.heap.put(0x1000, "run")
    watched.heap.put(0x2000, "serve", flags=_COROUTINE)
    watched.heap.put(0x3000, "query", flags=_COROUTINE)
    whole = [0x3000, 0x2000, 0x1000]
    watched.add((1, whole), (2, [0x1000]), (3, [0x3000, 0x2000, 0x4000]), (4, [0x3000, 0x1000]))
    # The one that could not be read may be of a coroutine, and matters outside of the others only.
    watched.add((5, [0x3000, 0x4000, 0x1000]), (6, [0x4000, 0x3000, 0x1000]))
    assert watched.tasks == {1: "serve", 4: "query", 6: "query"}


def test_what_is_kept_of_code_is_bounded(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "MAX_BYTES", 10_000)
    known = watched.table._codes._known
    most = 0
    for number in range(200):
        watched.heap.put(0x10000000 + number * 0x1000, f"f{number}")
        made = watched.add((number + 1, [0x10000000 + number * 0x1000, 0x10000000]))
        assert made[number + 1] == [(f"f{number}", 1), ("f0", 1)]
        most = max(most, sum(map(len, watched.table._codes._known.values())))
        assert sum(map(len, watched.table._ids.values())) < 40
        # A process may make any number of addresses up.
        watched.add((1000 + number, [0x20000000 + number]))
    assert 5 < most < 40
    assert watched.table._codes._known is not known


def test_going_through_lines_is_bounded(watched: Watched) -> None:
    """A program may have any number of tables of any size; its functions have their names."""
    sizes = [2, MAX_TABLE, MAX_TABLE + 2, *[MAX_TABLE] * 8, 2]
    addresses = [0x1000 * (number + 1) for number in range(len(sizes))]
    for number, (address, size) in enumerate(zip(addresses, sizes, strict=True)):
        watched.heap.put(address, f"f{number}", table=size)
    made = watched.add(*((number + 1, [address]) for number, address in enumerate(addresses)))
    assert [made[n + 1][0][0] for n in range(len(sizes))] == [f"f{n}" for n in range(len(sizes))]
    lines = [made[n + 1][0][1] for n in range(len(sizes))]
    assert lines == [1, 1, None, 1, 1, *[None] * 6, 1]
    # Of the next lot some is gone through again.
    watched.later()
    watched.heap.put(0x1000, "other", table=MAX_TABLE)
    assert watched.add((100, [0x1000])) == {100: [("other", 1)]}


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_NS"])
def test_code_that_is_met_at_once_is_bounded(
    limit: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond that has no name, and gets one the next time."""
    monkeypatch.setattr(codes, limit, 2000 if limit == "MAX_BYTES" else 0)
    watched.heap.put(0x1000, "known")
    watched.add((1, [0x1000]))
    addresses = [0x2000 + 0x1000 * number for number in range(20)]
    for address in addresses:
        watched.heap.put(address, "fresh")
    watched.later()
    made = watched.add(*((number + 2, [address]) for number, address in enumerate(addresses)))
    named = [frames != [(UNREADABLE, None)] for frames in made.values()]
    assert named == sorted(named, reverse=True)
    assert sum(named) == (7 if limit == "MAX_BYTES" else 0)
    monkeypatch.undo()
    monkeypatch.setattr("time.monotonic_ns", lambda: watched._now)
    watched.later()
    assert watched.add((100, [addresses[-1]])) == {100: [("fresh", 1)]}


def test_a_process_that_always_has_other_code_is_renewed_ever_less_often(watched: Watched) -> None:
    """But again and again, and after the last change."""
    told = 0
    for turn in range(1000):
        watched.heap.put(0x1000, f"f{turn}")
        watched.later()
        watched.add((1 + turn, [0x1000]))
        told += watched.table.check_some({1}) == {1}
    assert 55 < told < 75
    for _ in range(100):
        watched.later()
        told += watched.table.check_some({1}) == {1}
    assert 56 < told < 77
    watched.later()
    for _ in range(200):
        watched.later()
        assert watched.table.check_some({1}) == set()
