"""What rows tell of waits that are counted by bucket: how many they are, and how long each was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sltrace.analysis.cells import bucket_sql
from sltrace.analysis.ranks import Place
from sltrace.analysis.selection import LENGTH, Dimension, Selection, Value, tables
from sltrace.buckets import N_BUCKETS, lower_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

_WANTED = "sltrace_wanted_waits"
_TYPES = {"int": pa.int64(), "str": pa.string()}


def counts_by_bucket(
    trace: Trace, by: Sequence[Dimension], selection: Selection, groups: Sequence[tuple[Value, ...]]
) -> list[NDArray[np.int64]]:
    """How many rows groups have by latency bucket, each of shape (N_BUCKETS,).

    Args:
        trace: Where from.
        by: The groups' dimensions.
        selection: The groups' waits.
        groups: The keys of each.
    """
    counts = np.zeros((len(groups), N_BUCKETS), np.int64)
    condition, parameters = selection.where()
    table = pa.table({**_keys(by, groups), "number": range(len(groups))})
    with trace.registered((_WANTED, table)):
        rows = trace.sql(
            f"WITH kept AS (SELECT {_told(by)}{LENGTH} AS ns "
            f"FROM {tables((*by, *selection.dimensions))} WHERE {condition}) "
            f"SELECT number, {bucket_sql('ns')} AS bucket, count(*) AS n "
            f"FROM kept JOIN {_WANTED} AS wanted ON {_same(by)} GROUP BY ALL",
            parameters,
        )
    number, bucket, n = (rows[name].to_numpy() for name in ("number", "bucket", "n"))
    counts[number, bucket] = n
    return list(counts)


def lengths(
    trace: Trace,
    by: Sequence[Dimension],
    selection: Selection,
    places: Iterable[Place],
    least_ns: int = 0,
) -> dict[Place, int]:
    """How long the waits at some places were (ns); those are left out that the rows do not tell.

    The rows are all the waits of a bucket if they are as many.

    Args:
        trace: Where from.
        by: The groups' dimensions.
        selection: The groups' waits.
        places: Which.
        least_ns: Of shorter waits some may have no row.
    """
    low = lower_bounds()
    wanted = list(dict.fromkeys(p for p in places if p.of and low[p.bucket] >= least_ns))
    if not wanted:
        return {}
    table = pa.table(
        {
            **_keys(by, [p.keys for p in wanted]),
            "number": range(len(wanted)),
            "bucket": [p.bucket for p in wanted],
            "at": [p.at for p in wanted],
            "n": [p.of for p in wanted],
        }
    )
    condition, parameters = selection.where()
    same = f"{_same(by)} AND wanted.bucket = kept.bucket"
    group = ", ".join((*_keys(by, ()), "bucket"))
    with trace.registered((_WANTED, table)):
        rows = trace.sql(
            f"WITH kept AS (SELECT {_told(by)}{LENGTH} AS ns, {bucket_sql(LENGTH)} AS bucket "
            f"FROM {tables((*by, *selection.dimensions))} WHERE {condition} AND {LENGTH} >= ?), "
            f"placed AS (SELECT *, row_number() OVER (PARTITION BY {group} ORDER BY ns) AS at, "
            f"count(*) OVER (PARTITION BY {group}) AS n "
            f"FROM kept SEMI JOIN {_WANTED} AS wanted ON {same}) "
            f"SELECT number, ns FROM {_WANTED} AS wanted JOIN placed AS kept "
            f"ON {same} AND wanted.at = kept.at AND wanted.n = kept.n",
            [*parameters, min(int(low[p.bucket]) for p in wanted)],
        ).to_pylist()
    return {wanted[row["number"]]: row["ns"] for row in rows}


def _keys(by: Sequence[Dimension], groups: Sequence[tuple[Value, ...]]) -> dict[str, pa.Array]:
    """Columns of groups' keys."""
    return {f"k{i}": pa.array([g[i] for g in groups], _TYPES[d.type]) for i, d in enumerate(by)}


def _told(by: Sequence[Dimension]) -> str:
    return "".join(f"{d.sql} AS k{i}, " for i, d in enumerate(by))


def _same(by: Sequence[Dimension]) -> str:
    keys = range(len(by))
    return " AND ".join(f"wanted.k{i} IS NOT DISTINCT FROM kept.k{i}" for i in keys) or "true"
