"""A stretch of a trace's time for the page to zoom into: the page's data, made of its waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heatmaps.encode import said
from heatmaps.page import cube_data

if TYPE_CHECKING:
    from sltrace.analysis.part import Whole

BINS = 300
"""Time bins of a part, as of a page; fewer where it has fewer nanoseconds."""


def part_data(whole: Whole, start_ns: int | None, end_ns: int | None) -> dict[str, Any]:
    """The page's data of the waits that ended in this time, as plain JSON values.

    The end is put off until all bins are equally long. `aggregated` is what was put together.

    Args:
        whole: Where from.
        start_ns: Where it begins; the recording's start by default.
        end_ns: Where it ends; the recording's end by default.

    Raises:
        UsageError: It is empty, or the trace has no single waits.
        TraceError: The trace is damaged.
    """
    from sltrace.analysis.cubeprofiles import Stretch
    from sltrace.analysis.meta import clock_ns

    start = clock_ns(whole.trace, "start_ns") if start_ns is None else start_ns
    end = clock_ns(whole.trace, "end_ns") if end_ns is None else end_ns
    bin_ns = -(-max(0, end - start) // BINS)
    end = start + bin_ns * min(BINS, end - start)
    cube = whole.part(start, end, BINS)
    aggregated = cube.notes
    cube = whole.with_profiles(cube, Stretch(start, end))
    block, data = cube_data(cube)
    return {
        **data,
        "columns": block.directory,
        "block": block.text(),
        "aggregated": [said(n) for n in aggregated],
    }
