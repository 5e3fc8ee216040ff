"""How the runtime counts durations: `timeHistogram`, in runtime/histogram.go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

LATENCIES = "/sched/latencies:seconds"
STW_HISTOGRAMS = (
    "/sched/pauses/stopping/gc:seconds",
    "/sched/pauses/stopping/other:seconds",
    "/sched/pauses/total/gc:seconds",
    "/sched/pauses/total/other:seconds",
)
"""The four of stopped worlds since 1.22, as they lie."""
GC_PAUSES = "/gc/pauses:seconds"
"""The one of stopped worlds before: one value each time the collector stops it, two a cycle."""


@dataclass(frozen=True)
class Shape:
    """Buckets of equal width within each power of two.

    Attributes:
        per_power: How many there are in each.
        unit_ns: Width of those of the first two powers.
        buckets: How many there are in all.
        ends: Counts behind those: of values below 0 and, if there are two, of larger ones.
    """

    per_power: int
    unit_ns: int
    buckets: int
    ends: int

    @property
    def words(self) -> int:
        """64-bit words of one."""
        return self.buckets + self.ends

    @property
    def size(self) -> int:
        """Bytes of one."""
        return 8 * self.words

    @cached_property
    def bounds(self) -> tuple[NDArray[np.int64], list[int | None]]:
        """Lowest value of each count, in ns, and the lowest above it; None for no end."""
        low = [self._lowest(i) for i in range(self.buckets + 1)]
        beyond = low.pop()
        high: list[int | None] = [*low[1:], beyond, 0, None]
        if self.ends == 1:
            # Larger ones are in the last.
            return np.array([*low, -1], np.int64), [*high[: self.buckets - 1], None, 0]
        return np.array([*low, -1, beyond], np.int64), high

    def _lowest(self, bucket: int) -> int:
        power, within = divmod(bucket, self.per_power)
        if not power:
            return bucket * self.unit_ns
        return (self.per_power + within) * self.unit_ns << (power - 1)


SINCE_1_20 = Shape(per_power=4, unit_ns=64, buckets=160, ends=2)
BEFORE_1_20 = Shape(per_power=16, unit_ns=1, buckets=720, ends=1)
