"""Intervals with losses that a cube has: as many as a page can hold, of longer times if need be."""

from __future__ import annotations

from collections.abc import Sequence

from sltrace.analysis.losses import LossInterval

MAX_LOSSES = 20_000
_SECOND = 1_000_000_000


def fewer(
    intervals: Sequence[LossInterval], limit: int = MAX_LOSSES
) -> tuple[list[LossInterval], int]:
    """The same losses in about so many intervals, and how long these may be (ns; 0: as they were).

    Nothing is left out: those of a CPU are added up with their neighbours in time.

    Args:
        intervals: With losses.
        limit: How many may stay; more do where CPUs and names of losses alone are more.
    """
    found, length = list(intervals), 0
    if not found:
        return found, length
    first = min(i.start_ns for i in found)
    whole = max(i.end_ns for i in found) - first
    while len(found) > limit and length <= whole:
        length = 2 * length or 2 * _SECOND
        found = _added_up(found, first, length)
    return found, length


def _added_up(found: Sequence[LossInterval], first: int, length: int) -> list[LossInterval]:
    together: dict[tuple[int, int, str], list[LossInterval]] = {}
    for one in found:
        place = (one.start_ns - first) // length, one.cpu, one.name
        together.setdefault(place, []).append(one)
    return [
        LossInterval(
            min(i.start_ns for i in some),
            max(i.end_ns for i in some),
            cpu,
            name,
            sum(i.value for i in some),
        )
        for (_, cpu, name), some in sorted(together.items())
    ]
