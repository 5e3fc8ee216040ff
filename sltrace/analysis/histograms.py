"""Latency from the in-kernel histograms: counts and sums exact, percentiles by bucket."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.ranges import QUANTILES, Group, Range
from sltrace.analysis.selection import Dimension, Selection, Value, tables
from sltrace.buckets import N_BUCKETS, lower_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

_BUCKET = f"least(bucket, {N_BUCKETS - 1})"


def from_histograms(trace: Trace, by: Sequence[Dimension], selection: Selection) -> list[Group]:
    """Groups of the histogram tables, most time first.

    Args:
        trace: Where from.
        by: Dimensions the histograms have.
        selection: By such dimensions only; the histograms do not tell single waits apart.
    """
    sums = _grouped(trace, "histogram_sums", by, selection, "", "sum(sum_ns)::BIGINT AS total")
    buckets = _grouped(trace, "histograms", by, selection, _BUCKET, "")
    counts: dict[tuple[Value, ...], NDArray[np.int64]] = {}
    for row in buckets:
        keys = _keys(row, by)
        counts.setdefault(keys, np.zeros(N_BUCKETS, np.int64))[row["bucket"]] = row["n"]
    empty = np.zeros(N_BUCKETS, np.int64)
    groups = [_group(_keys(row, by), row, counts.get(_keys(row, by), empty)) for row in sums]
    return sorted(groups, key=lambda g: (-g.total_ns, -g.count, [str(k) for k in g.keys]))


def histogram_counts(trace: Trace, selection: Selection) -> NDArray[np.int64]:
    """Waits by bucket, shape (N_BUCKETS,); the selection as for `from_histograms`."""
    counts = np.zeros(N_BUCKETS, np.int64)
    for row in _grouped(trace, "histograms", (), selection, _BUCKET, ""):
        counts[row["bucket"]] = row["n"]
    return counts


def bucket_quantile(counts: NDArray[np.int64], quantile: Decimal) -> Range:
    """Bounds of the nearest-rank quantile of bucketed waits.

    Args:
        counts: Waits by bucket, shape (N_BUCKETS,).
        quantile: More than 0, at most 1.
    """
    cumulative = np.cumsum(counts)
    count = int(cumulative[-1])
    if count == 0:
        return Range(0, None)
    rank = int((quantile * count).to_integral_value(ROUND_CEILING))
    index = int(np.searchsorted(cumulative, rank))
    bounds = lower_bounds()
    high = int(bounds[index + 1]) - 1 if index + 1 < N_BUCKETS else None
    return Range(int(bounds[index]), high)


def _group(keys: tuple[Value, ...], row: dict[str, int], counts: NDArray[np.int64]) -> Group:
    return Group(
        keys=keys,
        count=row["n"],
        total_ns=row["total"],
        quantiles=tuple(bucket_quantile(counts, q) for _, q in QUANTILES),
        longest=bucket_quantile(counts, Decimal(1)),
        censored=None,
    )


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
    columns += [f"{bucket} AS bucket"] if bucket else []
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
