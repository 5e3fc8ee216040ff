"""What is counted of that which a recording writes."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pyarrow as pa

from sltrace.capture.feed import Feed
from sltrace.trace.schema import arrow_schema


def test_what_is_missed_are_rows_of_missed() -> None:
    rows = Mock()
    rows.waits.return_value = arrow_schema("waits").empty_table()
    rows.missed.side_effect = lambda records: pa.table({"low_ns": records})
    others = {name: Mock() for name in ("tasks", "groups", "native", "symbols")}
    probes = SimpleNamespace(stack_ring=None, cgroup_ring=None)
    feed = Feed(Mock(), probes, (), rows=rows, **others)  # type: ignore[arg-type]
    for count in (3, 0, 2):
        feed.put(np.zeros(count))
        feed.encode(sources=False)
    assert (feed.missed, feed.waits) == (5, 0)
