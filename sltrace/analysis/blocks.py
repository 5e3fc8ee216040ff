"""A side's waits by block of time, for `sltrace.analysis.confidence`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.analysis.confidence import GRID, GRID_SQL, Blocks, blocks_of
from sltrace.analysis.selection import Dimension, tables
from sltrace.model import RUNQ, RUNQ_KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.analysis.sides import Side


def of_class(side: Side, name: str) -> Side:
    """A side's waits of a class: runq, or another kind."""
    kinds, selected = RUNQ_KINDS if name == RUNQ else (name,), side.selection.kinds
    values = {
        **side.selection.values,
        "kind": tuple(k for k in kinds if selected is None or k in selected),
    }
    return replace(side, selection=replace(side.selection, values=values))


def side_blocks(side: Side) -> Blocks:
    """Its waits by block of time, as one group."""
    count = blocks_of(side.span_ns)
    counts = np.zeros((count, GRID))
    totals = np.zeros((count, 1))
    for row in by_block(side, f"least({GRID_SQL}, {GRID - 1}) AS k", count):
        counts[row["block"], row["k"]] = row["n"]
        totals[row["block"], 0] += row["total"]
    return Blocks(counts, totals, block_sizes(side, count))


def by_block(side: Side, key: str, count: int, used: Sequence[Dimension] = ()) -> Any:
    """Rows of block, the key's name, n and total (ns).

    Args:
        side: Whose waits.
        key: SQL with a name; what to group by within a block.
        count: Blocks.
        used: Dimensions in the key.
    """
    condition, parameters = side.selection.where()
    return side.trace.sql(
        f"SELECT {_block_of('end_ns', side, count)} AS block, {key}, count(*) AS n, "
        "sum(wait_ns)::DOUBLE AS total "
        f"FROM {tables({*used, *side.selection.dimensions})} WHERE {condition} GROUP BY ALL",
        parameters,
    ).to_pylist()


def _block_of(time: str, side: Side, count: int) -> str:
    """SQL for the block that a time is in."""
    # The last block also has what ended while the recording was being finished. No HUGEINT: it
    # takes six times as long, and so many blocks of a year fit a BIGINT.
    within = f"greatest(0, least({side.span_ns}, {time} - {side.start_ns}))"
    return f"least({count - 1}, {within} * {count} // {side.span_ns})::INTEGER"


def block_sizes(side: Side, count: int) -> NDArray[np.float64]:
    """Recorded seconds of each block, or traces that began in it."""
    if side.per == "second":
        edges = [side.start_ns + side.span_ns * i // count for i in range(count + 1)]
        pairs = itertools.pairwise(edges)
        return np.array([side.recorded_within(a, b) / 1e9 for a, b in pairs])
    of = side.counted or side.selection
    condition, parameters = of.where()
    rows = side.trace.sql(
        f"SELECT {_block_of('first', side, count)} AS block, "
        "count(*) AS n FROM (SELECT min(end_ns) AS first FROM "
        f"{tables(of.dimensions)} WHERE {condition} GROUP BY trace_id) GROUP BY 1",
        parameters,
    ).to_pylist()
    sizes = np.zeros(count)
    for row in rows:
        sizes[row["block"]] = row["n"]
    return sizes
