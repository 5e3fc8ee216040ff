"""A stretch of a trace's time for the page to zoom into: the page's data, made of its waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heatmaps.encode import bounded
from heatmaps.page import cube_data

if TYPE_CHECKING:
    from sltrace.analysis.cubeprofiles import OwnedProfiles
    from sltrace.trace.reader import Trace

BINS = 300
"""Time bins of a part, as of a page; fewer where it has fewer nanoseconds."""


def part_data(
    trace: Trace,
    start_ns: int | None,
    end_ns: int | None,
    profiles: OwnedProfiles | None = None,
) -> dict[str, Any]:
    """The page's data of the waits that ended in this time, as plain JSON values.

    The end is put off until all bins are equally long. `aggregated` is what was put together.

    Args:
        trace: Where from.
        start_ns: Where it begins; the recording's start by default.
        end_ns: Where it ends; the recording's end by default.
        profiles: To show beside the waits.

    Raises:
        UsageError: It is empty, or the trace has no single waits.
        TraceError: The trace is damaged.
    """
    from sltrace.analysis.cube import build_cube
    from sltrace.analysis.cubeprofiles import Part
    from sltrace.analysis.meta import clock_ns
    from sltrace.analysis.part import part_of

    start = clock_ns(trace, "start_ns") if start_ns is None else start_ns
    end = clock_ns(trace, "end_ns") if end_ns is None else end_ns
    bin_ns = -(-max(0, end - start) // BINS)
    end = start + bin_ns * min(BINS, end - start)
    cube = build_cube(part_of(trace, start, end), time_bins=BINS)
    aggregated = cube.notes
    if profiles:
        cube = profiles.beside(cube, Part(start, end))
    block, data = cube_data(cube)
    return {
        **data,
        "columns": block.directory,
        "block": block.text(),
        "aggregated": [bounded(n) for n in aggregated],
    }
