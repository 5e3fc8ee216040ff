"""Latency from the in-kernel histograms: counts and sums exact, percentiles by bucket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.keptwaits import lengths
from sltrace.analysis.meta import min_latency_ns
from sltrace.analysis.missing import NOTHING, MissingWaits
from sltrace.analysis.ranges import RANKED, Group, Range
from sltrace.analysis.ranks import Place, Ranking, limits, quantiles
from sltrace.analysis.selection import Dimension, Selection, Value, tables
from sltrace.buckets import N_BUCKETS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

_BUCKET = f"least(bucket, {N_BUCKETS - 1})"


def from_histograms(
    trace: Trace,
    by: Sequence[Dimension],
    selection: Selection,
    *,
    missing: MissingWaits | None = None,
    with_rows: bool = False,
) -> list[Group]:
    """Groups of the histogram tables, most time first.

    Args:
        trace: Where from.
        by: Dimensions the histograms have.
        selection: By such dimensions only; the histograms do not tell single waits apart.
        missing: What the percentiles of the groups lack.
        with_rows: Single waits were kept, too: percentiles are exact where those tell them.
    """
    sums = _grouped(trace, "histogram_sums", by, selection, "", "sum(sum_ns)::BIGINT AS total")
    buckets = _grouped(trace, "histograms", by, selection, _BUCKET, "")
    counts: dict[tuple[Value, ...], NDArray[np.int64]] = {}
    for row in buckets:
        keys = _keys(row, by)
        counts.setdefault(keys, np.zeros(N_BUCKETS, np.int64))[row["place"]] = row["n"]
    empty = np.zeros(N_BUCKETS, np.int64)
    groups = [_keys(row, by) for row in sums]
    rankings = [
        Ranking(g, counts.get(g, empty), missing.of(g) if missing else NOTHING) for g in groups
    ]

    def rows_tell(places: Iterable[Place]) -> dict[Place, int]:
        return lengths(trace, by, selection, places, min_latency_ns(trace)) if with_rows else {}

    found = [
        Group(
            keys=keys,
            count=row["n"],
            total_ns=row["total"],
            quantiles=tuple(ranges[:-1]),
            longest=ranges[-1],
            censored=None,
        )
        for keys, row, ranges in zip(
            groups, sums, quantiles(rankings, RANKED, rows_tell), strict=True
        )
    ]
    return sorted(found, key=lambda g: (-g.total_ns, -g.count, [str(k) for k in g.keys]))


def histogram_counts(trace: Trace, selection: Selection) -> NDArray[np.int64]:
    """Waits by bucket, shape (N_BUCKETS,); the selection as for `from_histograms`."""
    counts = np.zeros(N_BUCKETS, np.int64)
    for row in _grouped(trace, "histograms", (), selection, _BUCKET, ""):
        counts[row["place"]] = row["n"]
    return counts


def bucket_quantile(counts: NDArray[np.int64], quantile: Decimal) -> Range:
    """Bounds of the nearest-rank quantile of bucketed waits.

    Args:
        counts: Waits by bucket, shape (N_BUCKETS,).
        quantile: More than 0, at most 1.
    """
    return Ranking((), counts, NOTHING).quantile(quantile, limits)


def _grouped(
    trace: Trace,
    table: str,
    by: Sequence[Dimension],
    selection: Selection,
    bucket: str,
    total: str,
) -> list[dict[str, int]]:
    condition, parameters = selection.where()
    columns = [f"{d.sql} AS k{i}" for i, d in enumerate(by)]
    # Not called bucket: DuckDB would group by the column of that name.
    columns += [f"{bucket} AS place"] if bucket else []
    figures = ["sum(count)::BIGINT AS n", *([total] if total else [])]
    names = ", ".join(c.rsplit(" AS ", 1)[1] for c in columns)
    rows: list[dict[str, int]] = trace.sql(
        f"SELECT {', '.join(columns + figures)} FROM {tables((*by, *selection.dimensions), table)} "
        f"WHERE {condition} {f'GROUP BY {names}' if names else ''} HAVING n > 0",
        parameters,
    ).to_pylist()
    return rows


def _keys(row: dict[str, int], by: Sequence[Dimension]) -> tuple[Value, ...]:
    return tuple(row[f"k{i}"] for i in range(len(by)))
