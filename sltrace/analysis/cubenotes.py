"""What a cube's notes say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.cells import OTHER
from sltrace.analysis.cubeaxes import ALL_CPUS
from sltrace.analysis.meta import min_latency_ns
from sltrace.durations import format_duration
from sltrace.model import OTHERS

if TYPE_CHECKING:
    from sltrace.analysis.cells import Cells
    from sltrace.analysis.cubeaxes import Origin
    from sltrace.trace.reader import Trace


def aggregation_notes(
    trace: Trace, origin: Origin, cells: Cells, bin_ns: int, losses_ns: int, grids: Sequence[str]
) -> list[str]:
    """What was aggregated, a sentence each.

    Args:
        trace: Where from.
        origin: What was counted.
        cells: What became of it.
        bin_ns: Length of their time bins.
        losses_ns: Of what losses were added up over; 0 for as the trace has them.
        grids: Axes that are drawn finer.
    """
    merged = cells.level.get("b", 1)
    notes = [f"time is in bins of {format_duration(bin_ns)}, latency in 8 steps per power of two"]
    if merged > 1:
        notes[0] += f", {merged} of them put together"
    if origin.source == "histograms":
        notes.append(
            "only histograms were recorded: totals are exact, how much of them is of which latency "
            "is of the middles of the buckets"
        )
    elif threshold := min_latency_ns(trace):
        notes.append(f"only waits of {format_duration(threshold)} or more were kept")
    of_cpus = origin.source == "waits"
    if of_cpus and (group := cells.level.get("cpu", 1)) > 1:
        notes.append(
            f"CPUs are put together, {group if group < ALL_CPUS else 'all of them'} at a time"
        )
    if grids:
        drawn = ["all latencies"] if "b" in grids else []
        drawn += ["every CPU"] if of_cpus and "cpu" in grids else []
        fine = ", ".join([f"bins of {format_duration(origin.bin_ns)}", *drawn])
        notes.append(f"the heatmap is drawn finer than it can be selected: {fine}")
    whole = max(int(cells.sum_ns.sum()), 1)
    for axis, what in (
        ("cgroup", "cgroups"),
        ("comm", "threads"),
        ("policy", "policies"),
        ("kind", "kinds"),
        ("bucket", "trace ids"),
        ("stack", "stacks"),
        ("waker_stack", "waker stacks"),
    ):
        others = cells.digits.get(axis, np.ones(1)) == OTHER
        if others.any():
            share = int(cells.sum_ns[others].sum()) / whole
            notes.append(
                f"{what} with little time, {share:.2%} of it all, are put together as {OTHERS}"
            )
    if losses_ns:
        notes.append(f"losses of a CPU are added up over {format_duration(losses_ns)}")
    return notes
