"""Of a trace with a minimum latency, figures that its rows tell exactly where its histograms only
tell the bucket: the rows are all the waits of a bucket if they are as many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from sltrace.analysis.cells import bucket_sql
from sltrace.analysis.meta import min_latency_ns
from sltrace.analysis.selection import LENGTH, Dimension, Selection, Value, tables
from sltrace.buckets import lower_bounds

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_WANTED = "sltrace_wanted_waits"


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


def lengths(
    trace: Trace, by: Sequence[Dimension], selection: Selection, places: Iterable[Place]
) -> dict[Place, int]:
    """How long the waits at some places were (ns); those are left out that the rows do not tell.

    Args:
        trace: Where from.
        by: The groups' dimensions, which are text.
        selection: The groups' waits.
        places: Which.
    """
    low = lower_bounds()
    least = min_latency_ns(trace)
    wanted = list(dict.fromkeys(p for p in places if low[p.bucket] >= least))
    if not wanted:
        return {}
    keys = [f"k{i}" for i in range(len(by))]
    table = pa.table(
        {
            **{k: pa.array([p.keys[i] for p in wanted], pa.string()) for i, k in enumerate(keys)},
            "number": range(len(wanted)),
            "bucket": [p.bucket for p in wanted],
            "at": [p.at for p in wanted],
            "n": [p.of for p in wanted],
        }
    )
    condition, parameters = selection.where()
    told = "".join(f"{d.sql} AS {k}, " for d, k in zip(by, keys, strict=True))
    same = " AND ".join(f"wanted.{k} IS NOT DISTINCT FROM kept.{k}" for k in (*keys, "bucket"))
    group = ", ".join((*keys, "bucket"))
    with trace.registered((_WANTED, table)):
        rows = trace.sql(
            f"WITH kept AS (SELECT {told}{LENGTH} AS ns, {bucket_sql(LENGTH)} AS bucket "
            f"FROM {tables((*by, *selection.dimensions))} WHERE {condition} AND {LENGTH} >= ?), "
            f"placed AS (SELECT *, row_number() OVER (PARTITION BY {group} ORDER BY ns) AS at, "
            f"count(*) OVER (PARTITION BY {group}) AS n "
            f"FROM kept SEMI JOIN {_WANTED} AS wanted ON {same}) "
            f"SELECT number, ns FROM {_WANTED} AS wanted JOIN placed AS kept "
            f"ON {same} AND wanted.at = kept.at AND wanted.n = kept.n",
            [*parameters, min(int(low[p.bucket]) for p in wanted)],
        ).to_pylist()
    return {wanted[row["number"]]: row["ns"] for row in rows}
