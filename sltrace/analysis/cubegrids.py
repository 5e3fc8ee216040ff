"""Heatmaps finer than a cube that had to be coarse: one grid of time by each of its axes.

A cube of everything by everything is coarse where a trace is large; what is only drawn need not
be. What is selected is still whole cells of the cube, and the grids add up to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.analysis.cells import Axis
    from sltrace.trace.reader import Trace

MAX_CELLS = 400_000
"""Of all grids: at most 10 bytes each on a page."""
_MAX_ROWS = 4096
"""Of one grid."""

Grid = dict[str, "NDArray[Any]"]
"""Columns of equal length: t, y, kind, count, sum_ns, max_ns; by t. t and y are not coarse, names
are those the cube has."""


def fine_grids(
    trace: Trace, time: Axis, kinds: Axis, axes: Sequence[Axis], source: str, level: dict[str, int]
) -> dict[str, Grid]:
    """Grids by the name of their axis, as many as MAX_CELLS allows; none where the cube is fine.

    Args:
        trace: Where from.
        time: Time bins.
        kinds: Kinds of wait.
        axes: What the grids' rows are, the most important first.
        source: FROM clause, as for the cube.
        level: How coarse the cube is.
    """
    grids: dict[str, Grid] = {}
    room = MAX_CELLS
    for axis in axes:
        coarse = level.get("t", 1) > 1 or (not axis.ranked and level.get(axis.name, 1) > 1)
        if not coarse or (not axis.ranked and axis.size > _MAX_ROWS):
            continue
        rows = trace.sql(
            f"SELECT ({time.sql})::BIGINT AS t, {_digit(axis, level)} AS y, "
            f"{_digit(kinds, level)} AS kind, sum(n)::BIGINT AS count, sum(ns)::UBIGINT AS sum_ns, "
            f"max(longest)::UBIGINT AS max_ns FROM {source} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 "
            f"LIMIT {room + 1}"
        )
        if rows.num_rows <= room:
            room -= rows.num_rows
            grids[axis.name] = {name: np.array(rows.column(name)) for name in rows.column_names}
    return grids


def _digit(axis: Axis, level: dict[str, int]) -> str:
    digit = f"({axis.sql})::BIGINT"
    if axis.ranked and axis.name in level:
        return f"CASE WHEN {digit} <= {level[axis.name]} THEN {digit} ELSE 0 END"
    return digit
