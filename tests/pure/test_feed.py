"""What is counted of that which a recording writes."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sltrace.capture.feed import LOT, Feed
from sltrace.trace.schema import arrow_schema


def test_what_is_missed_are_rows_of_missed() -> None:
    rows = Mock()
    waits = arrow_schema("waits").empty_table()
    rows.tables.side_effect = lambda lot: (waits, pa.table({"low_ns": np.concatenate(lot)}))
    others = {name: Mock() for name in ("tasks", "groups", "native", "symbols")}
    probes = SimpleNamespace(stack_ring=None, cgroup_ring=None)
    feed = Feed(Mock(), probes, (), rows=rows, **others)  # type: ignore[arg-type]
    for count in (3, 0, 2):
        feed.put(np.zeros(count))
        feed.encode(sources=False)
    assert (feed.missed, feed.waits) == (5, 0)


@given(st.lists(st.integers(1, 5 * LOT // 2), max_size=12))
def test_lots_are_neither_many_nor_large(sizes: list[int]) -> None:
    lots: list[int] = []
    rows = Mock()

    def tables(lot: list[NDArray[np.uint8]]) -> tuple[pa.Table, pa.Table]:
        lots.append(sum(records.nbytes for records in lot))
        return arrow_schema("waits").empty_table(), arrow_schema("missed").empty_table()

    rows.tables.side_effect = tables
    others = {name: Mock() for name in ("tasks", "groups", "native", "symbols")}
    probes = SimpleNamespace(stack_ring=None, cgroup_ring=None)
    feed = Feed(Mock(), probes, (), rows=rows, **others)  # type: ignore[arg-type]
    for size in sizes:
        feed.put(np.empty(size, np.uint8))
    feed.encode(sources=False)
    assert sum(lots) == sum(sizes)
    assert feed.backlog == 0
    assert all(lot < 2 * LOT + max(sizes) for lot in lots)
    assert all(lot >= LOT for lot in lots[:-1])
