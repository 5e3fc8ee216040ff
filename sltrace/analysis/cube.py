"""A trace as one table small enough for a page: waits summed by everything the page selects by.

Counts and times are exact however coarse the table is; what was merged to make it small is said
in `notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.analysis import cubeaxes
from sltrace.analysis.addedup import added_up
from sltrace.analysis.cells import Axis, Cells, Step, summed_cells
from sltrace.analysis.cubeaxes import ALL_CPUS, Named, Origin
from sltrace.analysis.cubeblame import blame_table
from sltrace.analysis.cubedata import Cube
from sltrace.analysis.cubegrids import fine_grids
from sltrace.analysis.cubelosses import fewer
from sltrace.analysis.cubenotes import aggregation_notes
from sltrace.analysis.cubestacks import FrameTable, RankedStacks, rank_stacks
from sltrace.analysis.losses import losses
from sltrace.analysis.meta import gaps, machine_times, node_of_cpu
from sltrace.analysis.selection import LENGTH
from sltrace.analysis.slices import CgroupRan
from sltrace.analysis.slowtraces import slow_traces
from sltrace.analysis.stacks import PARTS
from sltrace.buckets import lower_bounds
from sltrace.model import OTHERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

    _Columns = dict[str, NDArray[Any]]

MAX_ROWS = 800_000
"""Rows of a cube: at most 12 bytes each on a page (measured), which may be 15 MB."""
_MAX_BINS = 10_000
_MAX_STACKS = 20_000


# What is rare goes first: threads, cgroups and stacks with little time. CPUs go before time and
# latency, which the page is about; a hundred stacks stay as long as there is another way.
_LADDER: tuple[Step, ...] = (
    (("stack", 8001), ("waker_stack", 4001)),
    (("stack", 4001), ("waker_stack", 1001), ("comm", 500)),
    (("stack", 2001), ("waker_stack", 501), ("comm", 250), ("cgroup", 500)),
    (("stack", 1001), ("waker_stack", 251), ("comm", 120), ("cgroup", 200)),
    (("cpu", 2),),
    (("comm", 60), ("cgroup", 100)),
    (("b", 2),),
    (("stack", 501), ("waker_stack", 101), ("bucket", 0)),
    (("cpu", 4),),
    (("comm", 30), ("cgroup", 60)),
    (("t", 2),),
    (("cpu", 8),),
    (("stack", 251), ("waker_stack", 51)),
    (("comm", 15), ("cgroup", 30)),
    (("cpu", 16),),
    (("b", 4),),
    (("stack", 101), ("waker_stack", 21)),
    (("cpu", 32), ("cgroup", 15)),
    (("t", 4),),
    (("comm", 5), ("stack", 31), ("waker_stack", 11)),
    (("cpu", 64), ("cgroup", 5)),
    (("b", 8),),
    (("comm", 0), ("stack", 1), ("waker_stack", 1)),
    (("cpu", ALL_CPUS),),
    (("t", 8),),
    (("stack", 0), ("waker_stack", 0)),
    (("b", 32), ("policy", 0)),
    (("cgroup", 0), ("t", 64)),
    (("b", 256),),
    (("t", 1 << 14),),
    (("kind", 0),),
)
_NAMES = ("cgroup", "comm", "policy", "kind")


def build_cube(
    trace: Trace, *, max_rows: int = MAX_ROWS, time_bins: int = 300, ran: CgroupRan | None = None
) -> Cube:
    """Aggregates a trace.

    Args:
        trace: Where from.
        max_rows: Rows at most; what had to be made coarser for that is in `notes`.
        time_bins: Time bins at most.
        ran: Of the whole recording, where the trace is a part of one.

    Raises:
        TraceError: The trace is damaged.
    """
    origin = Origin.of(trace, min(time_bins, _MAX_BINS))
    ran = ran or CgroupRan.of(trace)
    frames = FrameTable()
    plain = [origin.time, cubeaxes.BUCKETS, cubeaxes.cpus(trace, origin)]
    victims, wakers, holders = (
        rank_stacks(trace, which, frames, _MAX_STACKS) for which in ("victim", "waker", "culprit")
    )
    stacks = {"stack": victims, "waker_stack": wakers} if origin.source == "waits" else {}
    names, cells, grids = _summed(trace, origin, plain, stacks, max_rows)
    blame = blame_table(
        trace, origin, names=names, plain=plain, stacks=holders, level=cells.level, ran=ran
    )
    same = np.ones(len(cells.count), np.int64)
    rows = dict.fromkeys(("stack", "waker_stack", "bucket"), same) | cells.digits
    lists = {name: names[name].names for name in _NAMES}
    lists["bucket"] = [OTHERS, *cubeaxes.TRACE_BUCKETS]
    kept = _names_in_use(lists, rows, blame.rows, grids)
    group = cells.level.get("cpu", 1)
    present = np.unique(rows["cpu"])
    rows["cpu"] = np.searchsorted(present, rows["cpu"])
    if "cpu" not in blame.coarse:
        blame.rows["cpu"] = np.searchsorted(present, blame.rows["cpu"])
    used, (rows["stack"], rows["waker_stack"], blame.rows["stack"]) = _used_stacks(
        (rows["stack"], victims), (rows["waker_stack"], wakers), (blame.rows["stack"], holders)
    )
    bin_ns = origin.bin_ns * cells.level.get("t", 1)
    lost = losses(trace)
    intervals, losses_ns = fewer(lost.intervals)
    return Cube(
        start_ns=origin.start_ns,
        end_ns=origin.end_ns,
        bin_ns=bin_ns,
        n_bins=-(-(origin.end_ns - origin.start_ns) // bin_ns),
        bucket_low_ns=lower_bounds()[:: cells.level.get("b", 1)].tolist(),
        cgroups=kept["cgroup"],
        comms=kept["comm"],
        policies=kept["policy"],
        kinds=kept["kind"],
        buckets=kept["bucket"],
        cpus=[int(c) * group for c in present],
        cpu_group=group,
        nodes=node_of_cpu(trace),
        stacks=[list(s) for s in used],
        frames=frames.names,
        frame_kinds=frames.languages,
        rows={**rows, "count": cells.count, "sum_ns": cells.sum_ns, "max_ns": cells.max_ns},
        blame=blame,
        slow_traces=slow_traces(trace),
        losses=lost,
        loss_intervals=intervals,
        gaps=gaps(trace),
        machines=machine_times(trace, origin.start_ns, origin.end_ns, bin_ns),
        totals=_totals(trace, origin),
        source=origin.source,
        notes=aggregation_notes(trace, origin, cells, bin_ns, losses_ns, tuple(grids)),
        time_merged=cells.level.get("t", 1),
        buckets_merged=cells.level.get("b", 1),
        grids=grids,
    )


def _summed(
    trace: Trace,
    origin: Origin,
    plain: Sequence[Axis],
    stacks: Mapping[str, RankedStacks],
    max_rows: int,
) -> tuple[dict[str, Named], Cells, dict[str, _Columns]]:
    """Names by column, the cells of all axes, and the finer grids that are drawn."""
    traced = [cubeaxes.TRACE_BUCKET] if cubeaxes.any_trace_id(trace, origin) else []
    parts = [part for ranked in stacks.values() if ranked.any for part in PARTS[ranked.which]]
    keys = {axis.name: axis.sql for axis in (*plain, *traced)}
    keys |= {column: column for column in (*_NAMES, *parts)}
    with (
        cubeaxes.beside(trace, origin),
        added_up(trace, "sltrace_cube", origin.sql, keys, ("n", "ns", "longest")) as waits,
    ):
        names = {c: cubeaxes.named(trace, waits, c) for c in _NAMES}
        stacked = [cubeaxes.stack_axis(name, ranked) for name, ranked in stacks.items()]
        named = " ".join([f"{waits} w", *(n.join for n in names.values())])
        tables = [*(n.table for n in names.values()), *(table for _, _, table in stacked)]
        time, *drawn = (
            *(axis.found for axis in plain),
            *(n.axis for n in names.values()),
            *(axis.found for axis in traced),
        )
        axes = [time, *drawn, *(axis for axis, _, _ in stacked)]
        with trace.registered(*tables):
            source = " ".join([named, *(join for _, join, _ in stacked)])
            cells = summed_cells(trace, axes, source, max_rows, _LADDER)
            grids = fine_grids(trace, time, names["kind"].axis, drawn, named, cells.level)
    return names, cells, grids


def _names_in_use(
    lists: Mapping[str, Sequence[str]],
    rows: _Columns,
    blamed: _Columns,
    grids: Mapping[str, _Columns],
) -> dict[str, list[str]]:
    """Of each list of names those in use; all columns that number them are renumbered."""
    kept = {}
    for name, every in lists.items():
        columns = [(rows, name)]
        if name == "kind":
            columns += [(blamed, name), *((grid, name) for grid in grids.values())]
        if name in grids:
            columns.append((grids[name], "y"))
        kept[name] = _compact(every, columns)
    return kept


def _compact(names: Sequence[str], columns: Sequence[tuple[_Columns, str]]) -> list[str]:
    """Renumbers columns of tables to the names in use, and returns those."""
    present = np.unique(np.concatenate([table[column] for table, column in columns]))
    for table, column in columns:
        table[column] = np.searchsorted(present, table[column])
    return [names[i] for i in present]


def _used_stacks(
    *columns: tuple[NDArray[np.int64], RankedStacks],
) -> tuple[list[tuple[int, ...]], list[NDArray[np.int64]]]:
    """Stacks in use, the empty one first, and the columns of ranks as indices of them."""
    index: dict[tuple[int, ...], int] = {(): 0}
    found = []
    for ranks, ranked in columns:
        present, inverse = np.unique(ranks, return_inverse=True)
        new = [index.setdefault(ranked.stacks[rank], len(index)) for rank in present]
        found.append(np.array(new, np.int64)[inverse.ravel()])
    return list(index), found


def _totals(trace: Trace, origin: Origin) -> dict[str, dict[str, int | None]]:
    if origin.source == "waits":
        query = (
            f"SELECT coalesce(kind, '') AS kind, count(*) AS count, "
            f"sum({LENGTH})::BIGINT AS sum_ns, max({LENGTH}) AS max_ns "
            "FROM waits GROUP BY 1 ORDER BY 1"
        )
    else:
        query = (
            "SELECT coalesce(kind, '') AS kind, sum(count)::BIGINT AS count, "
            "sum(sum_ns)::BIGINT AS sum_ns, NULL AS max_ns FROM histogram_sums "
            "GROUP BY 1 ORDER BY 1"
        )
    return {row.pop("kind"): row for row in trace.sql(query).to_pylist()}
