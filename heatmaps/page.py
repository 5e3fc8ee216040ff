"""The report of a trace as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heatmaps.assemble import assemble
from heatmaps.encode import ColumnBlock, bounded, said
from heatmaps.facts import diagnosis, facts
from heatmaps.figure import base_figure
from heatmaps.trie import Trie
from sltrace.analysis.blame import HELD_KINDS
from sltrace.buckets import lower_bounds
from sltrace.model import LOST_KINDS

if TYPE_CHECKING:
    from sltrace.analysis.cubeblame import Party
    from sltrace.analysis.cubedata import Cube
    from sltrace.profiles.pprof import Profile
    from sltrace.trace.reader import Trace

_SCRIPTS = (
    "text.js",
    "theme.js",
    "skip.js",
    "tip.js",
    "decode.js",
    "cube.js",
    "axes.js",
    "view.js",
    "bands.js",
    "scale.js",
    "held.js",
    "heatmap.js",
    "keyboard.js",
    "trie.js",
    "flametree.js",
    "flame.js",
    "table.js",
    "flametable.js",
    "versus.js",
    "figures.js",
    "blame.js",
    "profiles.js",
    "stacks.js",
    "flameview.js",
    "traces.js",
    "diagnosis.js",
    "facts.js",
    "exact.js",
    "main.js",
)
"""In the order of their dependence."""

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        html: The whole file.
        rows: Rows of the cube in it.
        notes: What was aggregated or left out, one sentence each.
    """

    html: bytes
    rows: int
    notes: tuple[str, ...]


def build_page(
    trace: Trace,
    cube: Cube | None = None,
    *,
    profiles: Sequence[Profile] = (),
    served: bool = False,
) -> Page:
    """Makes the report of a trace.

    Args:
        trace: Where from.
        cube: Its aggregation, by default made here with the default limits.
        profiles: To show beside the waits of a cube that is made here.
        served: Whether the server it comes from answers questions about the trace
            (`sltrace serve`): the page then asks that, and still nobody else.

    Raises:
        TraceError: The trace is damaged.
    """
    from sltrace.analysis.meta import clock_ns

    if cube is None:
        from sltrace.analysis.part import Whole

        cube = Whole(trace, profiles).cube()
    block, data = cube_data(cube)
    data["served"] = served
    # What the server's times count from.
    data["since_ns"] = cube.start_ns - clock_ns(trace, "start_ns")
    data["facts"] = facts(trace, cube)
    data["diagnosis"] = diagnosis(trace, cube.losses)
    data["figure"] = base_figure(cube.n_bins * cube.bin_ns / _SECOND, cube.n_bins)
    title = f"sltrace: {bounded(trace.meta.get('host'))[:80]} {trace.path.name[:80]}"
    page = assemble(
        "page.html",
        ("vendor/plotly-cartesian.min.js", *_SCRIPTS),
        title,
        data,
        block,
        served=served,
    )
    return Page(page, len(cube.rows["t"]), tuple(cube.notes))


def cube_data(cube: Cube) -> tuple[ColumnBlock, dict[str, Any]]:
    """What the page draws a cube from: its columns, and all else as plain JSON values."""
    block = _columns(cube)
    names, victims = _victims(cube)
    for name, numbers in victims.items():
        block.add(f"victims.{name}", numbers)
    return block, {**_plain(cube), "victim_names": names}


def _columns(cube: Cube) -> ColumnBlock:
    block = ColumnBlock()
    for name, column in cube.rows.items():
        if name != "sum_ns":
            block.add(f"rows.{name}", column)
    # Most cells hold one wait, whose length is both: what is left is 0 and costs nothing.
    block.add("rows.rest_ns", _rest(cube.rows))
    for name, column in cube.blame.rows.items():
        block.add(f"blame.{name}", column)
    for axis, grid in cube.grids.items():
        for name, column in grid.items():
            if name != "sum_ns":
                block.add(f"grid-{axis}.{name}", column)
        block.add(f"grid-{axis}.rest_ns", _rest(grid))
    Trie.of(cube.stacks).pack(block)
    for name in ("profile", "stack", "owner", "window", "value"):
        block.add(f"profiles.{name}", cube.profile_rows.get(name, ()))
    # One more than the number or time: 0 is none.
    for name in ("trace", "bucket", "comm", "start_ns", "end_ns", "traced"):
        block.add(f"owners.{name}", [getattr(o, name) + 1 for o in cube.profile_owners])
    for name, column in cube.slow_traces.waits.items():
        block.add(f"traces.{name}", column)
    return block


def _plain(cube: Cube) -> dict[str, Any]:
    return {
        "start_ns": str(cube.start_ns),
        "bin_ns": cube.bin_ns,
        "recorded_ns": cube.end_ns - cube.start_ns,
        "bins": cube.n_bins,
        "low_ns": [int(v) for v in cube.bucket_low_ns],
        "fine_low_ns": lower_bounds().tolist() if "b" in cube.grids else [],
        "merged": {"t": cube.time_merged, "b": cube.buckets_merged},
        "cgroups": [bounded(n) for n in cube.cgroups],
        "comms": [bounded(n) for n in cube.comms],
        "policies": [bounded(n) for n in cube.policies],
        "kinds": [bounded(n) for n in cube.kinds],
        "lost_kinds": LOST_KINDS,
        "held_kinds": HELD_KINDS,
        "buckets": [bounded(n) for n in cube.buckets],
        "cpus": [int(c) for c in cube.cpus],
        "cpu_group": cube.cpu_group,
        "nodes": [cube.nodes.get(c, -1) for c in cube.cpus],
        "culprits": [_party(p) for p in cube.blame.culprits],
        "blame_coarse": cube.blame.coarse,
        "blame_lost": {
            axis: [i for i, name in enumerate(names) if name in cube.blame.lost.get(axis, ())]
            for axis, names in (("cgroup", cube.cgroups), ("comm", cube.comms))
        },
        "frames": [bounded(n) for n in cube.frames],
        "frame_kinds": [bounded(n) for n in cube.frame_kinds],
        **_profiles(cube),
        **_traces(cube),
        "losses": _losses(cube),
        "gaps": _times(cube, cube.gaps),
        "machines": [
            {"host": bounded(m.host), "cpu": m.first_cpu, "gaps": _times(cube, m.gaps)}
            for m in cube.machines
        ],
        "totals": {bounded(kind): total for kind, total in cube.totals.items()},
        "source": cube.source,
    }


def _profiles(cube: Cube) -> dict[str, Any]:
    """What each profile is; their samples are columns."""
    return {
        "profiles": [
            {
                "where": bounded(p.where),
                "measure": bounded(p.measure),
                "unit": p.unit,
                "on_cpu": p.on_cpu,
                "outside": p.outside,
                "sentence": said(p.sentence),
            }
            for p in cube.profiles
        ],
        "profile_windows": cube.profile_windows,
    }


def _traces(cube: Cube) -> dict[str, Any]:
    """The traces that lost most time; their waits are columns."""
    slow = cube.slow_traces
    return {
        "traces": [
            {
                "id": bounded(t.trace_id),
                "count": t.count,
                "ns": t.wait_ns,
                "max": t.max_ns,
                "blocked": t.blocked_ns,
                "start": t.start_ns - cube.start_ns,
                "end": t.end_ns - cube.start_ns,
                "lanes": t.lanes,
                "hidden": t.hidden,
            }
            for t in slow.traces
        ],
        "traces_of": slow.of,
        "trace_lanes": [bounded(n) for n in slow.lanes],
        "trace_kinds": [bounded(n) for n in slow.kinds],
        "trace_because": [bounded(n) for n in slow.because],
    }


def _losses(cube: Cube) -> list[dict[str, Any]]:
    """What was lost, by time and CPU."""
    return [
        {
            "from": max(0, loss.start_ns - cube.start_ns),
            "to": max(0, loss.end_ns - cube.start_ns),
            "cpu": loss.cpu,
            "name": bounded(loss.name),
            "value": loss.value,
        }
        for loss in cube.loss_intervals
    ]


def _times(cube: Cube, times: list[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"from": begin - cube.start_ns, "to": end - cube.start_ns} for begin, end in times]


def _party(party: Party) -> list[str]:
    return [party.what, *(bounded(n) for n in (party.cgroup, party.comm, party.process))]


def _victims(cube: Cube) -> tuple[list[str], dict[str, list[int]]]:
    """Who waited: their names, and by what is told of them columns of one more than the name's
    number; 0 is others together.

    There may be a victim for each wait, of few cgroups and threads.
    """
    numbers: dict[str, int] = {}
    columns = {
        name: [
            0 if called is None else numbers.setdefault(bounded(called), len(numbers) + 1)
            for called in (getattr(victim, name) for victim in cube.blame.victims)
        ]
        for name in ("cgroup", "comm", "process")
    }
    return list(numbers), columns


def _rest(sums: dict[str, Any]) -> Any:
    # Signed: a maximum above its sum would else be a huge number that nobody refuses.
    return (sums["sum_ns"] - sums["max_ns"]).astype(np.int64)
