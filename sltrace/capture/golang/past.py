"""Go processes that have ended and of which all was told: nothing of their programs is kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sltrace.capture.golang import rows as go_rows
from sltrace.capture.golang.sampler import Sampler
from sltrace.target.go.process import GoProcess

if TYPE_CHECKING:
    import pyarrow as pa

_NAMING_NS = 20_000_000
"""CPU time for names at a time, twice a second: rows of waits are made on the same thread."""
_PIECE = 64
"""Addresses that are named before the time is looked at: 3 to 10 ms (measured)."""
_MANY = 1 << 13
"""Addresses that wait to be named, from which on they have no file and line: those take 0.05 to
0.15 ms (measured), and what builds Go programs may have 2,000 a second in its stacks."""


class Past:
    """What is kept of them: a row of `targets`, and their part in meta.json.

    A program's functions are 0.3 to 3 MB. On a machine that builds Go programs one after the other
    581 processes of 30 programs took 48 MB (measured), so addresses are named soon, not at the end.

    Attributes:
        told: Their rows.
        described: Their parts.
        sampler_cpu_ns, sampler_ticks: What it took to read all of them.
        unplaced: Addresses that were named without file and line, as too many waited.
    """

    def __init__(self) -> None:
        self.told: list[go_rows.Told] = []
        self.described: list[dict[str, Any]] = []
        self.sampler_cpu_ns = self.sampler_ticks = 0
        self.unplaced = 0
        self._unnamed: deque[tuple[GoProcess, deque[int]]] = deque()
        self._waiting = 0

    def add(self, sampler: Sampler, row: go_rows.Told, part: dict[str, Any]) -> None:
        """Takes in a process that was sampled: its row, and its part of meta.json."""
        self.told.append(row)
        self.described.append(part)
        self.sampler_cpu_ns += sampler.cpu_ns
        self.sampler_ticks += sampler.ticks

    def name(self, process: GoProcess, addresses: Iterable[int]) -> None:
        """Takes in the addresses in stacks of a process."""
        if found := deque(sorted(addresses)):
            self._unnamed.append((process, found))
            self._waiting += len(found)

    def frames(self) -> Iterator[pa.Table]:
        """Names of some addresses, as rows of `frames`."""
        enough = time.thread_time_ns() + _NAMING_NS
        while self._unnamed and time.thread_time_ns() < enough:
            process, addresses = self._unnamed[0]
            many = self._waiting > _MANY
            some = [addresses.popleft() for _ in range(min(_PIECE, len(addresses)))]
            if not addresses:
                self._unnamed.popleft()
            self._waiting -= len(some)
            self.unplaced += len(some) if many else 0
            yield from go_rows.frames([(process, some)], 0 if many else go_rows.MAX_NAMING_NS)

    @property
    def unnamed(self) -> Iterable[tuple[GoProcess, Collection[int]]]:
        """What is left to be named."""
        return self._unnamed
