"""Puts a report together: one HTML file that needs nothing else, ever.

Its content security policy names the hash of each script in it and allows no connection, so a name
from the trace that found a way into the markup would still not run, and could not tell anyone.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heatmaps.encode import ColumnBlock, bounded, embedded_json
from heatmaps.facts import diagnosis, facts
from heatmaps.figure import base_figure
from heatmaps.trie import Trie

if TYPE_CHECKING:
    from sltrace.analysis.cube import Cube
    from sltrace.analysis.cubeblame import Party
    from sltrace.profiles.pprof import Profile
    from sltrace.trace.reader import Trace

_HERE = Path(__file__).parent
_PLOTLY = _HERE / "vendor" / "plotly-cartesian.min.js"
_ASSETS = _HERE / "assets"

_SCRIPTS = (
    "text.js",
    "theme.js",
    "tip.js",
    "decode.js",
    "cube.js",
    "axes.js",
    "view.js",
    "bands.js",
    "scale.js",
    "heatmap.js",
    "keyboard.js",
    "trie.js",
    "flametree.js",
    "flame.js",
    "table.js",
    "flametable.js",
    "figures.js",
    "blame.js",
    "profiles.js",
    "stacks.js",
    "flameview.js",
    "traces.js",
    "diagnosis.js",
    "facts.js",
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


def build_page(trace: Trace, cube: Cube | None = None, *, profiles: Sequence[Profile] = ()) -> Page:
    """Makes the report of a trace.

    Args:
        trace: Where from.
        cube: Its aggregation, by default made here with the default limits.
        profiles: Time on the CPU to show beside the waits.

    Raises:
        TraceError: The trace is damaged.
    """
    if cube is None:
        from sltrace.analysis.cube import build_cube

        cube = build_cube(trace)
    if profiles:
        from sltrace.analysis.cubeprofiles import merge_profiles

        cube = merge_profiles(trace, cube, profiles)
    block, data = _data(cube)
    data["facts"] = facts(trace, cube)
    data["diagnosis"] = diagnosis(trace)
    data["figure"] = base_figure(cube.n_bins * cube.bin_ns / _SECOND, cube.n_bins)
    scripts = [_PLOTLY.read_text(encoding="utf-8")]
    scripts += [(_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    title = f"sltrace: {bounded(trace.meta.get('host'))[:80]} {trace.path.name[:80]}"
    page = (_ASSETS / "page.html").read_text(encoding="utf-8")
    for mark, content in (
        ("title", html.escape(title)),
        ("policy", _policy(scripts)),
        ("style", (_ASSETS / "page.css").read_text(encoding="utf-8")),
        ("data", embedded_json(data)),
        ("columns", block),
        ("scripts", "\n".join(f"<script>{script}</script>" for script in scripts)),
    ):
        # Split at the mark, not str.replace: content may hold a later mark's text.
        before, after = page.split(f"<!--{mark}-->")
        page = before + content + after
    return Page(page.encode("utf-8", "backslashreplace"), len(cube.rows["t"]), tuple(cube.notes))


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    # Plotly writes style elements and attributes, and makes its PNG download from data: and blob:.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _data(cube: Cube) -> tuple[str, dict[str, Any]]:
    block = ColumnBlock()
    for name, column in cube.rows.items():
        if name != "sum_ns":
            block.add(f"rows.{name}", column)
    # Most cells hold one wait, whose length is both: what is left is 0 and costs nothing.
    block.add("rows.rest_ns", cube.rows["sum_ns"] - cube.rows["max_ns"])
    for name, column in cube.blame.rows.items():
        block.add(f"blame.{name}", column)
    trie = Trie.of(cube.stacks)
    for name in ("profile", "stack", "owner", "value"):
        block.add(f"profiles.{name}", cube.profile_rows.get(name, ()))
    # One more than the number or time: 0 is none.
    for name in ("trace", "bucket", "comm", "start_ns", "end_ns", "traced"):
        block.add(f"owners.{name}", [getattr(o, name) + 1 for o in cube.profile_owners])
    slow = cube.slow_traces
    for name, column in slow.waits.items():
        block.add(f"traces.{name}", column)
    # A node is mostly the child of the one before it.
    block.add("trie.back", np.arange(len(trie.parent)) - trie.parent)
    block.add("trie.frame", trie.frame)
    block.add("trie.stacks", trie.node_of_stack)
    data = {
        "start_ns": str(cube.start_ns),
        "bin_ns": cube.bin_ns,
        "bins": cube.n_bins,
        "low_ns": [int(v) for v in cube.bucket_low_ns],
        "cgroups": [bounded(n) for n in cube.cgroups],
        "comms": [bounded(n) for n in cube.comms],
        "policies": [bounded(n) for n in cube.policies],
        "kinds": [bounded(n) for n in cube.kinds],
        "buckets": [bounded(n) for n in cube.buckets],
        "cpus": [int(c) for c in cube.cpus],
        "cpu_group": cube.cpu_group,
        "nodes": [cube.nodes.get(c, -1) for c in cube.cpus],
        "victims": [_party(p) for p in cube.blame.victims],
        "culprits": [_party(p) for p in cube.blame.culprits],
        "blame_coarse": cube.blame.coarse,
        "frames": [bounded(n) for n in cube.frames],
        "frame_kinds": [bounded(n) for n in cube.frame_kinds],
        "profiles": [
            {
                "where": bounded(p.where),
                "measure": bounded(p.measure),
                "unit": p.unit,
                "on_cpu": p.on_cpu,
                "from": p.start_ns,
                "to": p.end_ns,
                "sentence": bounded(p.sentence),
            }
            for p in cube.profiles
        ],
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
        "trace_culprits": [bounded(n) for n in slow.culprits],
        "losses": [
            {
                "from": max(0, int(loss["t0"]) - cube.start_ns),
                "to": max(0, int(loss["t1"]) - cube.start_ns),
                "cpu": int(loss["cpu"]),
                "name": bounded(loss["name"]),
                "value": int(loss["value"]),
            }
            for loss in cube.losses
        ],
        "totals": {bounded(kind): total for kind, total in cube.totals.items()},
        "source": cube.source,
        "columns": block.directory,
    }
    return block.text(), data


def _party(party: Party) -> list[str]:
    return [party.what, *(bounded(n) for n in (party.cgroup, party.comm, party.process))]
