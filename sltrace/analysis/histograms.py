"""Latency from the in-kernel histograms: counts and sums exact, percentiles by bucket."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.keptwaits import Place, lengths
from sltrace.analysis.ranges import QUANTILES, Group, Range
from sltrace.analysis.selection import Dimension, Selection, Value, tables
from sltrace.buckets import N_BUCKETS, lower_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

_BUCKET = f"least(bucket, {N_BUCKETS - 1})"


def from_histograms(
    trace: Trace, by: Sequence[Dimension], selection: Selection, *, with_rows: bool = False
) -> list[Group]:
    """Groups of the histogram tables, most time first.

    Args:
        trace: Where from.
        by: Dimensions the histograms have.
        selection: By such dimensions only; the histograms do not tell single waits apart.
        with_rows: Single waits were kept, too: percentiles are exact where those tell them.
    """
    sums = _grouped(trace, "histogram_sums", by, selection, "", "sum(sum_ns)::BIGINT AS total")
    buckets = _grouped(trace, "histograms", by, selection, _BUCKET, "")
    counts: dict[tuple[Value, ...], NDArray[np.int64]] = {}
    for row in buckets:
        keys = _keys(row, by)
        counts.setdefault(keys, np.zeros(N_BUCKETS, np.int64))[row["place"]] = row["n"]
    empty = np.zeros(N_BUCKETS, np.int64)
    ranked = [_places(_keys(row, by), counts.get(_keys(row, by), empty)) for row in sums]
    known: dict[Place, int] = {}
    if with_rows:
        each = (place for places in ranked for place in places if place.of)
        known = lengths(trace, by, selection, each)
    groups = [_group(row, places, known) for row, places in zip(sums, ranked, strict=True)]
    return sorted(groups, key=lambda g: (-g.total_ns, -g.count, [str(k) for k in g.keys]))


def histogram_counts(trace: Trace, selection: Selection) -> NDArray[np.int64]:
    """Waits by bucket, shape (N_BUCKETS,); the selection as for `from_histograms`."""
    counts = np.zeros(N_BUCKETS, np.int64)
    for row in _grouped(trace, "histograms", (), selection, _BUCKET, ""):
        counts[row["place"]] = row["n"]
    return counts


def ranked(trace: Trace, selection: Selection, counts: NDArray[np.int64], rank: int) -> Range:
    """The wait of a rank: exact where the trace's rows tell it, else the limits of its bucket.

    Args:
        trace: Where from.
        selection: As for `from_histograms`.
        counts: `histogram_counts` of that.
        rank: 1 for the shortest; beyond the last it is the last.
    """
    place = _of_rank((), counts, min(rank, int(counts.sum())))
    known = lengths(trace, (), selection, [place])
    return Range(known[place], known[place]) if place in known else _limits(place)


def bucket_quantile(counts: NDArray[np.int64], quantile: Decimal) -> Range:
    """Bounds of the nearest-rank quantile of bucketed waits.

    Args:
        counts: Waits by bucket, shape (N_BUCKETS,).
        quantile: More than 0, at most 1.
    """
    return _limits(_place((), counts, quantile))


def _place(keys: tuple[Value, ...], counts: NDArray[np.int64], quantile: Decimal) -> Place:
    """Of the nearest-rank quantile."""
    rank = int((quantile * int(counts.sum())).to_integral_value(ROUND_CEILING))
    return _of_rank(keys, counts, rank)


def _of_rank(keys: tuple[Value, ...], counts: NDArray[np.int64], rank: int) -> Place:
    """Of the wait of a rank; the first of nothing where there are no waits."""
    cumulative = np.cumsum(counts)
    index = int(np.searchsorted(cumulative, rank))
    of = int(counts[index])
    return Place(keys, index, rank - int(cumulative[index]) + of, of)


def _places(keys: tuple[Value, ...], counts: NDArray[np.int64]) -> list[Place]:
    """Of QUANTILES, and of the longest wait."""
    return [_place(keys, counts, q) for q in (*(q for _, q in QUANTILES), Decimal(1))]


def _limits(place: Place) -> Range:
    """What the histograms know of a wait."""
    if not place.of:
        return Range(0, None)
    bounds = lower_bounds()
    last = place.bucket + 1 == N_BUCKETS
    return Range(int(bounds[place.bucket]), None if last else int(bounds[place.bucket + 1]) - 1)


def _group(row: dict[str, int], places: Sequence[Place], known: dict[Place, int]) -> Group:
    *quantiles, longest = (Range(known[p], known[p]) if p in known else _limits(p) for p in places)
    return Group(
        keys=places[0].keys,
        count=row["n"],
        total_ns=row["total"],
        quantiles=tuple(quantiles),
        longest=longest,
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
