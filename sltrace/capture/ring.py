"""BPF ring buffers as NumPy arrays: no callback and no Python per record.

Layout: Documentation/bpf/ringbuf.rst and kernel/bpf/ringbuf.c: a page with the consumer's
position, a page with the producer's, then the data. (The kernel offers the data twice in a row, so
that a record that wraps is contiguous; mapped once, it is half as much resident memory.) A record
is an 8-byte header (length with a busy and a discard bit) and its payload, padded to 8 bytes. All
records of one ring are of one type here.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = 8


class Ring:
    """The reading end of one ring buffer map.

    Args:
        fd: The map.
        size: Bytes of data, as the map was created.
        dtype: Type of every record.
    """

    def __init__(self, fd: int, size: int, dtype: np.dtype[Any]) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._consumer_page = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_page = mmap.mmap(
            fd, page + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumed = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._produced = np.frombuffer(self._producer_page, np.uint64, 1)
        self._data = np.frombuffer(self._producer_page, np.uint8, offset=page)
        self._words = self._data.view(np.uint32)
        # What a header says of a record that is finished.
        self._length = np.uint32(dtype.itemsize)
        self._stride = -(-(_HEADER + dtype.itemsize) // 8) * 8
        self._record = _behind_header(dtype, self._stride)

    def fill(self) -> float:
        """Share of the ring that waits to be read, 0 to 1."""
        return float(int(self._produced[0]) - int(self._consumed[0])) / self._size

    def drain(self) -> NDArray[Any] | None:
        """Takes all finished records; None if there are none. The array is a copy."""
        consumed = int(self._consumed[0])
        # Whole records: the producer moves by those.
        available = int(self._produced[0]) - consumed
        if available == 0:
            return None
        start = consumed % self._size
        length = self._finished(start, available)
        if length == 0:
            return None
        # As bytes: copied record by record, a structured array takes ten times as long (measured).
        taken = np.empty(length, np.uint8)
        head = min(length, self._size - start)
        taken[:head] = self._data[start : start + head]
        taken[head:] = self._data[: length - head]
        self._consumed[0] = consumed + length
        return taken.view(self._record)

    def _finished(self, start: int, available: int) -> int:
        """Bytes from `start` on that are whole records of the type expected, and written."""
        count = available // self._stride
        # Headers do not straddle the end of the data; the rest of a record may.
        first = min(count, -(-(self._size - start) // self._stride))
        behind_end = start + first * self._stride - self._size
        step = self._stride // 4
        whole = 0
        for at, n in ((start, first), (behind_end, count - first)):
            if n <= 0:
                break
            other = self._words[at // 4 : at // 4 + n * step : step] != self._length
            if other.any():
                return (whole + int(np.argmax(other))) * self._stride
            whole += n
        return whole * self._stride


def join(records: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """What `drain` gave at several times as one array; at least one, all of one type."""
    if len(records) == 1:
        return records[0]
    dtype = records[0].dtype
    # As plain bytes, for the reason in `drain`.
    return np.concatenate([r.view(f"V{dtype.itemsize}") for r in records]).view(dtype)


def _behind_header(dtype: np.dtype[Any], stride: int) -> np.dtype[Any]:
    """The type with its fields moved behind the header, padded to the stride."""
    fields: Mapping[str, Any] = dtype.fields or {}
    return np.dtype(
        {
            "names": list(fields),
            "formats": [field[0] for field in fields.values()],
            "offsets": [_HEADER + field[1] for field in fields.values()],
            "itemsize": stride,
        }
    )
