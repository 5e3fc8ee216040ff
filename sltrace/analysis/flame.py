"""Flame graphs: waits summed by the names of their stack's frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sltrace.analysis.selection import EVERYTHING, Selection, Value
from sltrace.analysis.stacks import MAX_GROUPS, Which, grouped_stacks
from sltrace.trace.reader import Trace

REST = "[all other stacks]"
"""Root of what is beyond the limit on stacks."""


@dataclass(frozen=True)
class Flame:
    """Folded stacks; waits without a stack are under a root that says so, so totals are stat's.

    Attributes:
        names: Distinct frame names.
        stacks: For each folded stack its indices into `names`, root first.
        counts: Waits of each.
        wait_ns: Their total.
    """

    names: tuple[str, ...]
    stacks: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    wait_ns: tuple[int, ...]


def flame(
    trace: Trace,
    selection: Selection = EVERYTHING,
    *,
    which: Which = "victim",
    roots: Sequence[str] = (),
    limit: int = MAX_GROUPS,
) -> Flame:
    """Folds the stacks of the selected waits, most time first.

    Args:
        trace: Where from.
        selection: Waits to look at: time range, wait range, values of dimensions.
        which: The victim's stack or the waker's.
        roots: Dimensions whose values become the outermost frames, e.g. ("cgroup", "comm").
        limit: Combinations of stack and roots to keep apart; the time of the others is under
            the root REST.

    Raises:
        UsageError: An unknown dimension.
    """
    grouped = grouped_stacks(trace, roots, selection, which, limit=limit)
    index: dict[str, int] = {}
    name_of_frame = [index.setdefault(f.name, len(index)) for f in grouped.frames]
    folded: dict[tuple[int, ...], list[int]] = {}
    named = [tuple(name_of_frame[i] for i in stack.tolist()) for stack in grouped.stacks]
    for group in grouped.groups:
        outer = tuple(
            index.setdefault(_root(dimension, key), len(index))
            for dimension, key in zip(roots, group.keys, strict=True)
        )
        sums = folded.setdefault(outer + named[group.stack], [0, 0])
        sums[0] += group.count
        sums[1] += group.wait_ns
    if grouped.rest_groups:
        rest = (index.setdefault(REST, len(index)),)
        folded[rest] = [grouped.rest_count, grouped.rest_ns]
    order = sorted(folded, key=lambda stack: (-folded[stack][1], stack))
    return Flame(
        names=tuple(index),
        stacks=tuple(order),
        counts=tuple(folded[s][0] for s in order),
        wait_ns=tuple(folded[s][1] for s in order),
    )


def _root(dimension: str, key: Value) -> str:
    return f"[{dimension} unknown]" if key is None else str(key)
