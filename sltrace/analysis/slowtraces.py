"""The distributed traces that waited longest, and what each of their threads waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sltrace.analysis.selection import LENGTH
from sltrace.analysis.timelost import lost_sql
from sltrace.analysis.whose import BECAUSE, LANE, LANE_KEY
from sltrace.model import BLOCKED_KINDS, LOST_KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

MAX_TRACES = 100
MAX_WAITS = 300
"""Waits kept of one trace, the longest."""

_WANTED = "sltrace_slow_traces"


@dataclass(frozen=True)
class SlowTrace:
    """One trace.

    Attributes:
        trace_id: 32 hex digits.
        count: Its waits of LOST_KINDS; so too the next two.
        wait_ns: Their total.
        max_ns: The longest.
        blocked_ns: Total of those of BLOCKED_KINDS.
        start_ns: Start of its first wait (CLOCK_MONOTONIC).
        end_ns: End of its last wait.
        lanes: Threads, goroutines and tasks that waited for it.
        hidden: Waits beyond MAX_WAITS.
    """

    trace_id: str
    count: int
    wait_ns: int
    max_ns: int
    blocked_ns: int
    start_ns: int
    end_ns: int
    lanes: int
    hidden: int


@dataclass(frozen=True)
class SlowTraces:
    """The slowest ones and their waits.

    Attributes:
        traces: Most time lost first.
        of: How many traces there are.
        lanes: Names that `waits["lane"]` indexes.
        kinds: Likewise.
        because: Likewise: who had what was waited for, or who ended the wait.
        waits: Columns of equal length: trace, lane, kind, because, end_ns, wait_ns; by trace, lane
            and end. end_ns is from the start of the trace.
    """

    traces: list[SlowTrace]
    of: int
    lanes: list[str]
    kinds: list[str]
    because: list[str]
    waits: dict[str, NDArray[Any]]


def slow_traces(trace: Trace, most: int = MAX_TRACES) -> SlowTraces:
    """The `most` traces that lost most time; none where the trace has no ids."""
    lost = f"kind IN {LOST_KINDS!r}"
    found = trace.sql(
        f"""
        SELECT trace_id, count(*) FILTER (WHERE {lost}) AS count, count(*) AS n,
          coalesce({lost_sql(trace)}, 0) AS wait_ns,
          coalesce(max({LENGTH}) FILTER (WHERE {lost}), 0)::BIGINT AS max_ns,
          coalesce(sum({LENGTH}) FILTER (WHERE kind IN {BLOCKED_KINDS!r}), 0)::BIGINT
            AS blocked_ns,
          min(end_ns - {LENGTH}) AS start_ns, max(end_ns) AS end_ns,
          count(DISTINCT {LANE_KEY}) AS lanes, count(*) OVER () AS of
        FROM waits WHERE trace_id <> '' AND end_ns IS NOT NULL AND kind IS NOT NULL
        GROUP BY trace_id ORDER BY wait_ns DESC, trace_id LIMIT ?
        """,
        [most],
    ).to_pylist()
    traces = [
        SlowTrace(
            hidden=max(0, row["n"] - MAX_WAITS),
            **{k: v for k, v in row.items() if k not in ("n", "of")},
        )
        for row in found
    ]
    wanted = pa.table(
        {
            "trace_id": pa.array([t.trace_id for t in traces], pa.string()),
            "trace": pa.array(range(len(traces)), pa.int64()),
            "began": pa.array([t.start_ns for t in traces], pa.int64()),
        }
    )
    with trace.registered((_WANTED, wanted)):
        waits = trace.sql(
            f"""
            SELECT trace, {LANE} AS lane, kind, end_ns - began AS end_ns, {LENGTH} AS wait_ns,
              {BECAUSE} AS because
            FROM waits w JOIN {_WANTED} USING (trace_id)
            WHERE end_ns IS NOT NULL AND kind IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY trace ORDER BY {LENGTH} DESC, end_ns)
              <= {MAX_WAITS}
            ORDER BY trace, lane, end_ns, wait_ns
            """
        )
    columns = {c: waits.column(c).to_numpy() for c in ("trace", "end_ns", "wait_ns")}
    names: dict[str, list[str]] = {}
    for column in ("lane", "kind", "because"):
        coded = waits.column(column).combine_chunks().dictionary_encode()
        names[column] = coded.dictionary.to_pylist()
        columns[column] = coded.indices.to_numpy().astype(np.int64)
    return SlowTraces(
        traces=traces,
        of=found[0]["of"] if found else 0,
        lanes=names["lane"],
        kinds=names["kind"],
        because=names["because"],
        waits=columns,
    )
