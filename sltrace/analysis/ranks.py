"""Waits by their rank, shortest first, with those that are missing among them.

What is known are the counts by latency bucket; how long a wait of a bucket was is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.ranges import Range
from sltrace.buckets import N_BUCKETS, bucket_of, lower_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.analysis.missing import Missing
    from sltrace.analysis.selection import Value


@dataclass(frozen=True)
class Place:
    """Where a wait is among all of a group, shortest first.

    Attributes:
        keys: The group's.
        bucket: The wait's.
        at: How many of that bucket are not longer, itself one of them.
        of: How many waits the bucket has.
    """

    keys: tuple[Value, ...]
    bucket: int
    at: int
    of: int


Look = Callable[[Place], Range]
"""How long the wait at a place was, as far as that is known."""


@dataclass(frozen=True)
class Ranking:
    """A group's waits.

    Attributes:
        keys: The group's.
        counts: Its waits by bucket, without those that are missing; shape (N_BUCKETS,).
        missing: What it lacks.
    """

    keys: tuple[Value, ...]
    counts: NDArray[np.int64]
    missing: Missing

    @property
    def total(self) -> int:
        """How many they are with those that are missing."""
        return int(self.counts.sum()) + self.missing.count

    def quantile(self, quantile: Decimal, look: Look) -> Range:
        """The nearest-rank quantile, with the missing ones at their shortest and their longest.

        Args:
            quantile: More than 0, at most 1.
            look: Tells single waits.
        """
        missing, n = self.missing, int(self.counts.sum())
        rank = int((quantile * self.total).to_integral_value(ROUND_CEILING))
        if not rank:
            return Range(0, None)
        if missing.certain:
            low = self._among(missing.lows_ns, rank, look).low_ns
            return Range(low, self._among(missing.highs_ns, rank, look).high_ns)
        # All of them shorter than every other, or all longer.
        low = self._seen(rank - missing.count, look).low_ns if rank > missing.count else 0
        high = self._seen(min(rank, n), look).high_ns if n else 0
        if rank > n and high is not None:
            longest = missing.longest_ns
            high = None if longest is None else max(high, longest)
        return Range(low, high)

    def _seen(self, rank: int, look: Look) -> Range:
        """The wait of a rank, of those that are not missing."""
        cumulative = np.cumsum(self.counts)
        bucket = int(np.searchsorted(cumulative, rank))
        of = int(self.counts[bucket])
        return look(Place(self.keys, bucket, rank - int(cumulative[bucket]) + of, of))

    def _among(self, others: NDArray[np.int64], rank: int, look: Look) -> Range:
        """The same with others of these lengths (ns), in their order, among them."""
        per_bucket = np.bincount(bucket_of(others), minlength=N_BUCKETS)
        cumulative = np.cumsum(self.counts + per_bucket)
        bucket = int(np.searchsorted(cumulative, rank))
        first, of = int(per_bucket[:bucket].sum()), int(self.counts[bucket])
        own = [0, *others[first : first + int(per_bucket[bucket])].tolist()]
        rank -= int(cumulative[bucket]) - of - (len(own) - 1)
        # The first `rank` of the bucket are `k` others and the rest of these: the longest of
        # them is least where they are the shortest.
        lows, highs = [], []
        for k in range(max(0, rank - of), min(len(own) - 1, rank) + 1):
            seen = look(Place(self.keys, bucket, rank - k, of)) if rank > k else Range(0, 0)
            lows.append(max(own[k], seen.low_ns))
            if seen.high_ns is not None:
                highs.append(max(own[k], seen.high_ns))
        return Range(min(lows), min(highs, default=None))


def quantiles(
    rankings: Sequence[Ranking],
    wanted: Sequence[Decimal],
    lengths: Callable[[Iterable[Place]], Mapping[Place, int]],
) -> list[list[Range]]:
    """Quantiles of groups, by group.

    Args:
        rankings: The groups.
        wanted: Which, as `Ranking.quantile` takes them.
        lengths: How long the waits at some places were (ns), as far as it knows.
    """
    places: dict[Place, None] = {}

    def note(place: Place) -> Range:
        places[place] = None
        return limits(place)

    for ranking in rankings:
        for quantile in wanted:
            ranking.quantile(quantile, note)
    known = lengths(places)

    def look(place: Place) -> Range:
        return Range(known[place], known[place]) if place in known else limits(place)

    return [[ranking.quantile(quantile, look) for quantile in wanted] for ranking in rankings]


def limits(place: Place) -> Range:
    """What the bucket tells of a wait."""
    bounds = lower_bounds()
    last = place.bucket + 1 == N_BUCKETS
    return Range(int(bounds[place.bucket]), None if last else int(bounds[place.bucket + 1]) - 1)
