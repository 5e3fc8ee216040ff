"""Sums over a grid too large to hold: cells are added up as they stream by, and made coarser
whenever there are too many.

A cell is a few integers, each with digits along some of the axes in mixed radix. Every step of
coarsening merges cells of the step before, so the result depends on the waits only, not on their
order or batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.buckets import N_BUCKETS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

OTHER = 0
"""Digit of everything beyond those kept, on axes whose digits are ranks."""

_WORD = 1 << 62
"""Cells that one integer of a key tells apart."""

_BATCH = 1 << 20
"""Waits between two merges: 40 MB of columns."""


def bucket_sql(wait: str) -> str:
    """SQL for `sltrace.buckets.bucket_of` of a BIGINT expression that is not negative."""
    # From 2^38 on everything is in the last bucket; below, log2 as a double is right: the closest
    # call, 2^38 - 1, is 5e-12 from 38, whose ulp is 7e-15. The logarithm of 0 is an error.
    clipped = f"least({wait}, {1 << 38})"
    octave = f"floor(log2(greatest({clipped}, 128)))::BIGINT"
    return (
        f"(CASE WHEN {wait} < 128 THEN {wait} >> 4 ELSE least({N_BUCKETS - 1}, "
        f"({octave} - 6) * 8 + (({clipped} >> ({octave} - 3)) & 7)) END)"
    )


@dataclass(frozen=True)
class Axis:
    """One axis of the grid.

    Attributes:
        name: What it is called.
        size: Its digits are below this.
        sql: Its digit, BIGINT.
        ranked: Coarsening keeps the digits 1 to n and makes the others OTHER; otherwise it
            merges runs of n digits into their first.
    """

    name: str
    size: int
    sql: str
    ranked: bool = False

    @property
    def found(self) -> Axis:
        """The same where its digit is a column of its name, of the table w."""
        return replace(self, sql=f"w.{self.name}")


@dataclass(frozen=True)
class Cells:
    """The cells with something in them, by number.

    Attributes:
        digits: Of each axis, those of each cell; of merged runs the number of the run.
        count: Waits in each.
        sum_ns: Their total.
        max_ns: The longest.
        level: What was coarsened: the last value for each axis.
    """

    digits: dict[str, NDArray[np.int64]]
    count: NDArray[np.int64]
    sum_ns: NDArray[np.uint64]
    max_ns: NDArray[np.uint64]
    level: dict[str, int]


Step = tuple[tuple[str, int], ...]
"""Axes and how much each is to be coarsened. A run length is a multiple of the one before."""

_Place = tuple[Axis, int, int]
"""An axis, the word of the key that its digit is in, and the digit's weight there."""

_Sums = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.uint64]", "NDArray[np.uint64]"]
"""Keys, of shape (words, n); waits, their total and the longest."""


def summed_cells(
    trace: Trace,
    axes: Sequence[Axis],
    source: str,
    max_cells: int,
    steps: Iterable[Step],
    level: dict[str, int] | None = None,
) -> Cells:
    """Adds up rows by cell, in memory that depends on `max_cells` only.

    Args:
        trace: Where from.
        axes: The grid.
        source: FROM clause with columns n (waits), ns (their total) and longest.
        max_cells: Take steps until there are no more cells than this, or no steps.
        steps: In this order.
        level: What is coarsened from the start.

    Raises:
        TraceError: The trace is damaged.
    """
    grid = _places(axes)
    words = 1 + max((word for _, word, _ in grid), default=0)
    keys_sql = [
        " + ".join(f"({a.sql})::BIGINT * {w}" for a, k, w in grid if k == word) or "0::BIGINT"
        for word in range(words)
    ]
    query = (
        f"SELECT {', '.join(keys_sql)}, n::BIGINT AS n, ns::UBIGINT AS ns, "
        f"longest::UBIGINT AS longest FROM {source}"
    )
    level = dict(level or {})
    ranked = {axis.name for axis in axes if axis.ranked}
    remaining = iter(steps)
    sums: _Sums = (
        np.empty((words, 0), np.int64),
        np.empty(0, np.int64),
        *(np.empty(0, np.uint64),) * 2,
    )
    for keys, *values in _batches(trace, query, words):
        keys = _coarsened(keys, grid, level)
        both = zip(sums, (keys, *values), strict=True)
        sums = _merged(*(np.concatenate(p, axis=-1) for p in both))
        while len(sums[1]) > max_cells and (step := next(remaining, None)):
            # What is kept of ranks from the start may be less already.
            coarser = {n: min(v, level.get(n, v)) if n in ranked else v for n, v in step}
            level.update(coarser)
            sums = _merged(_coarsened(sums[0], grid, coarser), *sums[1:])
    digits = {
        axis.name: sums[0][word]
        // weight
        % axis.size
        // (1 if axis.ranked else level.get(axis.name, 1))
        for axis, word, weight in grid
    }
    return Cells(digits, *sums[1:], level)


def _places(axes: Sequence[Axis]) -> list[_Place]:
    """Spreads the axes over as many words as they need; the first axis weighs most."""
    words: list[list[Axis]] = [[]]
    for axis in axes:
        if prod(a.size for a in (*words[-1], axis)) > _WORD:
            words.append([])
        words[-1].append(axis)
    return [
        (axis, k, prod(a.size for a in word[i + 1 :]))
        for k, word in enumerate(words)
        for i, axis in enumerate(word)
    ]


def _batches(trace: Trace, query: str, words: int) -> Iterator[_Sums]:
    for batch in trace.batches(query, _BATCH):
        columns = [batch.column(i).to_numpy() for i in range(words + 3)]
        yield (np.stack(columns[:words]), *columns[words:])


def _coarsened(
    keys: NDArray[np.int64], grid: Sequence[_Place], level: dict[str, int]
) -> NDArray[np.int64]:
    """The cells that these become; theirs again if they are as coarse already."""
    keys = keys.copy()
    for axis, word, weight in grid:
        if axis.name not in level:
            continue
        digit = keys[word] // weight % axis.size
        if axis.ranked:
            lost = np.where(digit > level[axis.name], digit - OTHER, 0)
        else:
            lost = digit % level[axis.name]
        keys[word] -= lost * weight
    return keys


def _merged(keys: NDArray[Any], n: NDArray[Any], ns: NDArray[Any], longest: NDArray[Any]) -> _Sums:
    if not len(n):
        return keys, n, ns, longest
    order = np.argsort(keys[0]) if len(keys) == 1 else np.lexsort(keys[::-1])
    keys = keys[:, order]
    new = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    first = np.flatnonzero(np.concatenate(([True], new)))
    return (
        keys[:, first],
        np.add.reduceat(n[order], first),
        np.add.reduceat(ns[order], first),
        np.maximum.reduceat(longest[order], first),
    )
