"""The waits in order of time, a slice at a time, so that memory does not grow with the trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sltrace.analysis.selection import Selection, tables
from sltrace.trace.schema import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

    from sltrace.trace.reader import Trace

SLICE_ROWS = 250_000
"""Waits of one slice, about: it is cut at times, not at rows."""


def ordered_waits(
    trace: Trace, selection: Selection, slice_rows: int = SLICE_ROWS
) -> Iterator[pa.Table]:
    """Tables with the columns of `waits`, sorted by end_ns (then tid, kind) within and across.

    Args:
        trace: Where from.
        selection: Waits to give.
        slice_rows: About how many rows to sort at once. More where that many end at one instant.
    """
    columns = ", ".join(f'waits."{c.name}"' for c in TABLES["waits"])
    source = tables(selection.dimensions)
    for part in _slices(trace, selection, slice_rows):
        condition, parameters = part.where()
        rows = trace.sql(
            f"SELECT {columns} FROM {source} WHERE {condition} ORDER BY end_ns, tid, kind",
            parameters,
        )
        if rows.num_rows:
            yield rows


def _slices(trace: Trace, selection: Selection, slice_rows: int) -> Iterator[Selection]:
    condition, parameters = selection.where()
    source = tables(selection.dimensions)
    count = trace.sql(f"SELECT count(*) AS n FROM {source} WHERE {condition}", parameters)
    pieces = -(-int(count["n"][0].as_py()) // slice_rows)
    if pieces < 2:
        yield selection
        return
    shares = ", ".join(f"{i / pieces:.9f}" for i in range(1, pieces))
    # Approximate quantiles do: any cuts are right, these are about even, in constant memory.
    cuts = trace.sql(
        f"SELECT approx_quantile(end_ns, [{shares}]) AS cuts FROM {source} WHERE {condition}",
        parameters,
    )["cuts"][0].as_py()
    start = selection.start_ns
    for cut in sorted(set(cuts)):
        yield replace(selection, start_ns=start, end_ns=cut)
        start = cut
    yield replace(selection, start_ns=start)
