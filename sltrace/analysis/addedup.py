"""Waits added up where a page cannot tell them apart, before any names are looked up for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_SAMPLE = 1 << 18
"""Rows that tell how many of them are alike."""
_MOST_DISTINCT = 0.5
"""Of the sample; with more, adding up takes longer than it saves: 10 M waits in 9.9 M combinations
take 8.5 s and 2 GB, 47 M in 0.2 M combinations 5 s in place of 25 (measured)."""


@contextmanager
def added_up(
    trace: Trace, table: str, source: str, keys: Mapping[str, str], sums: Sequence[str]
) -> Iterator[str]:
    """A FROM item for as long as the block runs, in which rows with the same keys may be one.

    Args:
        trace: Where from.
        table: What it may be called meanwhile.
        source: FROM item with the columns of `sums`.
        keys: The columns that tell rows apart, each with its SQL.
        sums: What is added up, or of which, for `longest`, the most is taken.

    Raises:
        TraceError: The trace is damaged.
    """
    told = ", ".join(f"{sql} AS {name}" for name, sql in keys.items())
    (seen,) = trace.sql(
        "SELECT count(*) AS groups, coalesce(sum(n), 0)::BIGINT AS n FROM (SELECT count(*) AS n "
        f"FROM (SELECT {told} FROM {source} LIMIT {_SAMPLE}) GROUP BY {', '.join(keys)})"
    ).to_pylist()
    if seen["groups"] > _MOST_DISTINCT * seen["n"]:
        yield f"(SELECT {told}, {', '.join(sums)} FROM {source})"
        return
    added = ", ".join(f"{'max' if c == 'longest' else 'sum'}({c}) AS {c}" for c in sums)
    with trace.stored(table, f"SELECT {told}, {added} FROM {source} GROUP BY ALL"):
        yield table
