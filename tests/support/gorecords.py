"""Records of Go programs, as the programs' own runtime counts them, and the probes in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sltrace.target.go.histograms import SINCE_1_20
from sltrace.target.go.process import GoProcess
from sltrace.trace.reader import Trace

BUCKETS = SINCE_1_20.buckets


def difference(
    after: dict[str, list[int]], before: dict[str, list[int]], name: str, buckets: int = BUCKETS
) -> list[int]:
    """Counts per bucket, without the runtime's bucket below 0."""
    pairs = zip(after[name], before[name], strict=True)
    return [a - b for a, b in pairs][1 : buckets + 1]


def bucketed(waits: Any) -> list[int]:
    """The same from single waits, by the bounds that runtime/metrics documents."""
    low = SINCE_1_20.bounds[0][:BUCKETS]
    return np.bincount(np.searchsorted(low, waits, side="right") - 1, minlength=BUCKETS).tolist()


def column(trace: Trace, query: str) -> Any:
    """The only column of a query's result."""
    return trace.sql(query).column(0).to_numpy()


def counters_of(trace: Trace) -> dict[str, int]:
    """What the Go probes counted."""
    found: dict[str, int] = trace.meta["sources"]["go"]["counters"]
    return found


def targets(trace: Trace) -> list[dict[str, Any]]:
    """The Go processes looked into."""
    return trace.sql("SELECT * FROM targets WHERE runtime = 'go' ORDER BY pid").to_pylist()


def breakpoints(process: GoProcess) -> int:
    """Of the functions probed, those whose code in memory is not that of the file."""
    sites = [process.sites.record, process.sites.tracked]
    changed = 0
    for site in sites:
        assert site is not None
        changed += process.memory.read(site + process.bias, 1) != process.image.read(site, 1)
    return changed
