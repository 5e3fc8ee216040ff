"""A heatmap of any part of a trace, exact at any zoom: counts, times and maxima of its cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sltrace.analysis.cells import bucket_sql
from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.selection import EVERYTHING, LENGTH, Selection, Value, dimensions, tables
from sltrace.buckets import lower_bounds
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

LATENCY = "latency"
MAX_COLUMNS = 10_000
MAX_ROWS = 500
"""Values of a dimension that are rows; the others share the last one."""


@dataclass(frozen=True)
class Heat:
    """Cells with waits in them.

    Attributes:
        start_ns: Start of column 0, from the start of the recording.
        column_ns: Length of a column; a wait is in the column in which it ended.
        columns: How many.
        by: latency, or a dimension.
        rows: For latency the smallest wait (ns) of each row; else the values, most time first.
        others: Values beyond MAX_ROWS, which share a last row, None.
        cells: column, row, count, sum_ns and max_ns: lists of equal length.
        losses: What the selection may lack.
    """

    start_ns: int
    column_ns: int
    columns: int
    by: str
    rows: list[Value]
    others: int
    cells: dict[str, list[int]]
    losses: Losses

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        return {
            **{n: getattr(self, n) for n in self.__dataclass_fields__},
            "losses": self.losses.to_json(),
        }


def heat(
    trace: Trace,
    by: str = LATENCY,
    selection: Selection = EVERYTHING,
    *,
    columns: int = 1000,
) -> Heat:
    """Sums waits by time and by latency or a dimension.

    Args:
        trace: Where from.
        by: `latency` (the buckets of sltrace.buckets) or a dimension.
        selection: The waits; its times are where the columns begin and end.
        columns: About how many: each has the same whole number of ns.

    Raises:
        UsageError: Too many columns, an unknown dimension, or a trace without single waits.
    """
    if not 1 <= columns <= MAX_COLUMNS:
        raise UsageError(f"{columns} columns cannot be", f"ask for 1 to {MAX_COLUMNS:,}")
    if trace.meta.get("histogram_only"):
        raise UsageError("this trace has histograms only", "record without --histogram-only")
    origin = clock_ns(trace, "start_ns")
    start = max(origin, selection.start_ns or 0)
    end = clock_ns(trace, "end_ns") if selection.end_ns is None else selection.end_ns
    length = max(1, end - start)
    column_ns = -(-length // columns)
    rows, others, row_sql, extra, source = _rows(trace, by, selection)
    condition, parameters = selection.where()
    found = trace.sql(
        f"SELECT c, r, count(*) AS n, sum(ns)::BIGINT AS total, max(ns) AS longest FROM "
        f"(SELECT greatest(0, (end_ns - ?) // ?) AS c, {row_sql} AS r, {LENGTH} AS ns "
        f"FROM {source} WHERE {condition}) GROUP BY c, r ORDER BY c, r",
        [start, column_ns, *extra, *parameters],
    )
    names = (("column", "c"), ("row", "r"), ("count", "n"), ("sum_ns", "total"))
    cells = {name: found[c].to_pylist() for name, c in (*names, ("max_ns", "longest"))}
    used = max([-(-length // column_ns), *(c + 1 for c in cells["column"][-1:])])
    return Heat(start - origin, column_ns, used, by, rows, others, cells, losses(trace, selection))


def _rows(
    trace: Trace, by: str, selection: Selection
) -> tuple[list[Value], int, str, list[object], str]:
    if by == LATENCY:
        bounds: list[Value] = [int(v) for v in lower_bounds()]
        return bounds, 0, bucket_sql(LENGTH), [], tables(selection.dimensions)
    (dimension,) = dimensions((by,))
    condition, parameters = selection.where()
    source = tables({dimension, *selection.dimensions})
    values: list[Value] = trace.sql(
        f"SELECT {dimension.sql} AS v FROM {source} WHERE {condition} GROUP BY v "
        f"ORDER BY sum({LENGTH}) DESC, v",
        parameters,
    )["v"].to_pylist()
    shown, others = values[:MAX_ROWS], max(0, len(values) - MAX_ROWS)
    known = [None if v is None else str(v) for v in shown]
    # list_position finds NULL as well; what is not in the list is in the row after the last.
    row = f"coalesce(list_position(?::VARCHAR[], {dimension.sql}::VARCHAR), {len(known) + 1}) - 1"
    return shown + [None] * bool(others), others, row, [known], source
