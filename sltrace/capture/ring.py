"""BPF ring buffers as NumPy arrays: no callback and no Python per record.

Layout: Documentation/bpf/ringbuf.rst and kernel/bpf/ringbuf.c: a page with the consumer's
position, a page with the producer's, then the data, mapped twice in a row so that a record that
wraps is contiguous. A record is an 8-byte header (length with a busy and a discard bit) and its
payload, padded to 8 bytes. All records of one ring are of one type here.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = 8
_BUSY = np.uint32(1 << 31)


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
            fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumed = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._produced = np.frombuffer(self._producer_page, np.uint64, 1)
        self._data = np.frombuffer(self._producer_page, np.uint8, offset=page)
        stride = -(-(_HEADER + dtype.itemsize) // 8) * 8
        self._record: np.dtype[Any] = np.dtype(
            {
                "names": ["length", "payload"],
                "formats": ["u4", dtype],
                "offsets": [0, _HEADER],
                "itemsize": stride,
            }
        )

    def fill(self) -> float:
        """Share of the ring that waits to be read, 0 to 1."""
        return float(int(self._produced[0]) - int(self._consumed[0])) / self._size

    def drain(self) -> NDArray[Any] | None:
        """Takes all finished records; None if there are none. The array is a copy."""
        consumed = int(self._consumed[0])
        # A multiple of the stride, as every record is: the producer moves by whole records.
        available = int(self._produced[0]) - consumed
        if available <= 0:
            return None
        start = consumed % self._size
        records = self._data[start : start + available].view(self._record)
        busy = records["length"] & _BUSY
        if busy.any():
            records = records[: int(np.argmax(busy != 0))]
            if len(records) == 0:
                return None
        taken = records["payload"].copy()
        self._consumed[0] = consumed + records.nbytes
        return taken
