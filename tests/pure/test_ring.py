"""Ring buffers are read as the kernel's documentation lays them out, around their end too."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.capture.recordring import RecordRing
from sltrace.capture.ring import Ring, join

_SIZE = mmap.PAGESIZE
_TYPES = [
    np.dtype([("number", "<u8")]),
    np.dtype([("number", "<u8"), ("rest", "<u4", (5,))]),
    np.dtype({"names": ["number"], "formats": ["<u8"], "offsets": [8], "itemsize": 52}),
]
_BUSY = 1 << 31
_RECORDS = 8
_WHOLE = np.dtype([("number", "<u8"), ("tail", "<u8")])
_SHORT = np.dtype([("number", "<u8")])


class Kernel:
    """The writing end, on plain memory: a record at a time, byte by byte."""

    def __init__(self, dtype: np.dtype) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + _SIZE)
        self.memory = mmap.mmap(self.fd, 0)
        self.dtype = dtype
        self.stride = (8 + dtype.itemsize + 7) // 8 * 8
        self.produced = 0

    def start_at(self, position: int) -> None:
        """As if `position` bytes had gone through already."""
        self.produced = position
        self.memory[:8] = position.to_bytes(8, "little")
        self._publish()

    def write(self, number: int, *, busy: bool = False) -> None:
        """Adds a record."""
        value = np.zeros(1, self.dtype)
        value["number"] = number
        length = self.dtype.itemsize | (_BUSY if busy else 0)
        record = length.to_bytes(8, "little") + value.tobytes()
        for i, byte in enumerate(record.ljust(self.stride, b"\xff")):
            self.memory[2 * mmap.PAGESIZE + (self.produced + i) % _SIZE] = byte
        self.produced += self.stride
        self._publish()

    def finish(self, position: int) -> None:
        """Takes the busy bit off the record at a position."""
        at = 2 * mmap.PAGESIZE + position % _SIZE
        self.memory[at : at + 4] = self.dtype.itemsize.to_bytes(4, "little")

    def _publish(self) -> None:
        self.memory[mmap.PAGESIZE : mmap.PAGESIZE + 8] = self.produced.to_bytes(8, "little")


@pytest.fixture(params=_TYPES, ids=["8", "28", "52"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    kernel = Kernel(request.param)
    yield kernel
    os.close(kernel.fd)


def _ring(kernel: Kernel) -> Ring:
    return Ring(kernel.fd, _SIZE, kernel.dtype)


def test_nothing_there(kernel: Kernel) -> None:
    assert _ring(kernel).drain() is None


@given(data=st.data())
def test_every_record_once_and_in_order(data: st.DataObject) -> None:
    kernel = Kernel(data.draw(st.sampled_from(_TYPES)))
    try:
        room = _SIZE // kernel.stride
        kernel.start_at(kernel.stride * data.draw(st.integers(0, 3 * room)))
        ring = _ring(kernel)
        written, drained = 0, []
        for batch in data.draw(st.lists(st.integers(0, room), max_size=5)):
            for _ in range(batch):
                kernel.write(written)
                written += 1
            assert ring.fill() == batch * kernel.stride / _SIZE
            if (records := ring.drain()) is not None:
                drained.append(records)
        numbers = join(drained)["number"].tolist() if drained else []
        assert numbers == list(range(written))
    finally:
        os.close(kernel.fd)


@given(data=st.data())
def test_what_is_being_written_is_left_for_later(data: st.DataObject) -> None:
    kernel = Kernel(data.draw(st.sampled_from(_TYPES)))
    try:
        room = _SIZE // kernel.stride
        count = data.draw(st.integers(1, room))
        busy = data.draw(st.integers(0, count - 1))
        start = kernel.stride * data.draw(st.integers(0, 3 * room))
        kernel.start_at(start)
        ring = _ring(kernel)
        for number in range(count):
            kernel.write(number, busy=number == busy)
        first = ring.drain()
        assert (first["number"].tolist() if first is not None else []) == list(range(busy))
        kernel.finish(start + busy * kernel.stride)
        rest = ring.drain()
        assert rest is not None
        assert rest["number"].tolist() == list(range(busy, count))
        assert ring.fill() == 0
    finally:
        os.close(kernel.fd)


@given(
    st.integers(0, 3 * _RECORDS),
    st.lists(st.integers(0, _RECORDS), max_size=6),
    st.integers(0, 6),
)
def test_wait_records_once_and_in_order(begin: int, batches: list[int], widened: int) -> None:
    """Wherever the ring ends, and whenever more of each record is asked for."""
    memory = np.zeros(_RECORDS, _WHOLE)
    written, read = np.array([begin], np.uint64), np.array([begin], np.uint64)
    ring = RecordRing(memory.view(np.uint64).reshape(_RECORDS, -1), written, read, _SHORT)
    number, drained = 0, []
    for i, batch in enumerate(batches):
        if i == widened:
            ring.hand_over(_WHOLE)
        for _ in range(batch):
            memory[int(written[0]) % _RECORDS] = (number, number + 7)
            number += 1
            written += np.uint64(1)
        assert ring.fill() == batch / _RECORDS
        records = ring.drain()
        assert (0 if records is None else len(records)) == batch
        assert ring.fill() == 0
        if records is not None:
            assert records.dtype == (_WHOLE if i >= widened else _SHORT)
            assert i < widened or (records["tail"] == records["number"] + 7).all()
            drained += records["number"].tolist()
    assert drained == list(range(number))
