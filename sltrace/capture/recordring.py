"""Rings of wait records that the scheduler's probes write into plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.maps import view

_WORD = np.dtype(np.uint64)


class RecordRing:
    """The reading end of one CPU's ring: wait_records and ring_positions of probes/tables.bpf.h.

    Args:
        records: The ring in words; shape (records, words of a record).
        written: How many the probes have written so far; one number.
        read: How many were read; one number, which this sets.
        dtype: What is handed over of each record: its begin, in whole words.
    """

    def __init__(
        self,
        records: NDArray[np.uint64],
        written: NDArray[np.uint64],
        read: NDArray[np.uint64],
        dtype: np.dtype[Any],
    ) -> None:
        self._records = records
        self._written = written
        self._read = read
        self._dtype = dtype

    def hand_over(self, dtype: np.dtype[Any]) -> None:
        """From here on, so much of each record."""
        self._dtype = dtype

    def fill(self) -> float:
        """Share of the ring that waits to be read, 0 to 1."""
        return (int(self._written[0]) - int(self._read[0])) / len(self._records)

    def drain(self) -> NDArray[Any] | None:
        """Takes all records; None if there are none. The array is a copy."""
        dtype = self._dtype
        words = dtype.itemsize // _WORD.itemsize
        read, written = int(self._read[0]), int(self._written[0])
        if read == written:
            return None
        # As words: copied record by record, a structured array takes ten times as long (measured).
        taken = np.empty((written - read, words), _WORD)
        start = read % len(self._records)
        head = min(len(taken), len(self._records) - start)
        taken[:head] = self._records[start : start + head, :words]
        taken[head:] = self._records[: len(taken) - head, :words]
        self._read[0] = written
        return taken.view(dtype).reshape(-1)


def record_rings(
    records_fd: int,
    positions_fd: int,
    *,
    cpus: int,
    size: int,
    record: np.dtype[Any],
    position: np.dtype[Any],
    dtype: np.dtype[Any],
) -> list[RecordRing]:
    """The ring of each CPU.

    Args:
        records_fd: The map wait_records.
        positions_fd: The map ring_positions.
        cpus: Possible CPUs.
        size: Records of each ring.
        record: `struct wait_record`.
        position: `struct ring_position`.
        dtype: What is handed over of each record.
    """
    words = view(records_fd, cpus * size * (record.itemsize // _WORD.itemsize), _WORD)
    rings = words.reshape(cpus, size, -1)
    positions = view(positions_fd, cpus, position, writable=True)
    ends = positions.reshape(cpus, 1)
    return [RecordRing(rings[i], ends["written"][i], ends["read"][i], dtype) for i in range(cpus)]
