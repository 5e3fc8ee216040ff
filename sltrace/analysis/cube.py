"""Waits as a sparse cube: small enough for a page, exact in every total.

Rows are cells of time, latency bucket, CPU, cgroup, policy, kind and stacks. However coarse the
cells have to be, counts and sums add up to the trace's and no maximum is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sltrace.analysis.cubestacks import index_stacks
from sltrace.analysis.losses import losses
from sltrace.analysis.meta import clock_ns, min_latency_ns
from sltrace.buckets import N_BUCKETS, lower_bounds
from sltrace.model import RUNQ_KINDS

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

OTHER = "(other)"
MAX_CULPRIT_ROWS = 50_000
_BASE = "sltrace_cube"
_MAX_CULPRITS = 200
# log2 of a double is exact enough far beyond the last bucket, which begins at 189 s.
_CLIPPED = "least(wait_ns, 1099511627776)"
_OCTAVE = f"CASE WHEN wait_ns < 128 THEN 7 ELSE floor(log2({_CLIPPED}))::INTEGER END"
BUCKET_SQL = (
    f"CASE WHEN wait_ns < 128 THEN greatest(wait_ns, 0) >> 4 ELSE least({N_BUCKETS - 1}, "
    f"(({_OCTAVE} - 6) << 3) + (({_CLIPPED} >> ({_OCTAVE} - 3)) & 7)) END"
)
"""sltrace.buckets.bucket_of in SQL."""


@dataclass(frozen=True)
class Coarseness:
    """How fine a cube is: stacks and cgroups kept apart, time bins, buckets merged (log2)."""

    stacks: int
    bins: int
    cgroups: int
    merge: int


_LADDER = (
    (2000, 1, 60, 0),
    (500, 1, 60, 0),
    (150, 1, 60, 0),
    (150, 2, 60, 0),
    (60, 3, 40, 0),
    (40, 3, 20, 1),
    (20, 3, 10, 1),
    (10, 3, 5, 2),
    (1, 3, 5, 2),
    (1, 6, 2, 3),
)
"""Stacks, divisor of the time bins, cgroups, buckets merged: tried until the rows fit."""


@dataclass(frozen=True)
class Cube:
    """Cells and the names of their coordinates.

    Attributes:
        start_ns: Begin of the recording (CLOCK_MONOTONIC).
        end_ns: Its end.
        bin_ns: Length of a time bin; bin i begins at start_ns + i * bin_ns.
        n_bins: How many.
        bucket_low_ns: Lower bound of each latency row.
        cgroups: By index, as the following.
        policies: Scheduling policies.
        kinds: Kinds of wait.
        cpus: CPU numbers.
        culprits: Names of tasks that ran meanwhile.
        stacks: Frame indices, root first; the first stack is empty: none was taken.
        frames: Names of frames.
        frame_kinds: kernel, native, jit or other, for each.
        rows: Equally long arrays t, b, cpu, cgroup, policy, kind, stack, waker_stack, count,
            sum_ns, max_ns.
        culprit_rows: The same of t, cgroup, kind, culprit, ns, count.
        losses: Lost waits as t0, t1, cpu, name, value.
        missed: Waits not seen whole, as cause, count, low_ns, high_ns.
        totals: Of the whole trace by kind: count, sum_ns, max_ns.
        source: Single waits, or only histograms.
        notes: What was aggregated, in sentences.
    """

    start_ns: int
    end_ns: int
    bin_ns: int
    n_bins: int
    bucket_low_ns: list[int]
    cgroups: list[str]
    policies: list[str]
    kinds: list[str]
    cpus: list[int]
    culprits: list[str]
    stacks: list[list[int]]
    frames: list[str]
    frame_kinds: list[str]
    rows: dict[str, NDArray[Any]]
    culprit_rows: dict[str, NDArray[Any]]
    losses: list[dict[str, Any]]
    missed: list[dict[str, Any]]
    totals: dict[str, dict[str, int]]
    source: Literal["waits", "histograms"]
    notes: list[str]


def build_cube(trace: Trace, *, max_rows: int = 400_000, time_bins: int = 300) -> Cube:
    """Aggregates a trace.

    Args:
        trace: Where from.
        max_rows: Cells at most; what had to be made coarser for that is in `notes`.
        time_bins: Time bins at most.
    """
    source: Literal["waits", "histograms"] = (
        "histograms" if trace.meta.get("histogram_only") else "waits"
    )
    start, end = _extent(trace, source)
    finest = max(1, -(-(end - start) // time_bins))
    _make_base(trace, source, start, finest, time_bins)
    try:
        chosen = _choose(trace, max_rows, time_bins)
        cells = _cells(trace, chosen, time_bins)
    finally:
        trace.connection.execute(f"DROP TABLE IF EXISTS {_BASE}")
    tables, rows = _encoded(cells, ("cgroup", "policy", "kind", "cpu"))
    stacks = index_stacks(trace, cells["victim"], cells["waker"])
    rows["stack"], rows["waker_stack"] = stacks.victim, stacks.waker
    bin_ns = finest * (-(-time_bins // chosen.bins))
    culprits, culprit_rows, culprit_note = _culprits(trace, source, start, bin_ns, tables)
    lost = losses(trace)
    low = lower_bounds()[:: 1 << chosen.merge].tolist()
    return Cube(
        start_ns=start,
        end_ns=end,
        bin_ns=bin_ns,
        n_bins=max(1, -(-(end - start) // bin_ns)),
        bucket_low_ns=low,
        cgroups=[str(v) for v in tables["cgroup"]],
        policies=[str(v) for v in tables["policy"]],
        kinds=[str(v) for v in tables["kind"]],
        cpus=[int(v) for v in tables["cpu"]],
        culprits=culprits,
        stacks=stacks.stacks,
        frames=stacks.frames,
        frame_kinds=stacks.frame_kinds,
        rows=rows,
        culprit_rows=culprit_rows,
        losses=[
            {"t0": i.start_ns, "t1": i.end_ns, "cpu": i.cpu, "name": i.name, "value": i.value}
            for i in lost.intervals
        ],
        missed=[vars(m) for m in lost.missed],
        totals=_totals(trace, source),
        source=source,
        notes=[*_notes(trace, source, cells, chosen, bin_ns), *culprit_note],
    )


def _extent(trace: Trace, source: str) -> tuple[int, int]:
    """When the recording was; of waits that lie outside all the same, when they were."""
    table = "waits" if source == "waits" else "histograms"
    seen = trace.sql(f"SELECT min(end_ns) AS low, max(end_ns) AS high FROM {table}").to_pylist()[0]
    start, end = clock_ns(trace, "start_ns"), clock_ns(trace, "end_ns")
    if seen["low"] is not None:
        start, end = min(start or seen["low"], seen["low"]), max(end, seen["high"])
    return start, max(end, start + 1)


def _make_base(trace: Trace, source: str, start: int, bin_ns: int, bins: int) -> None:
    """The finest cells, as a temporary table; everything coarser is made from it."""
    if source == "waits":
        values = (
            f"cpu, {BUCKET_SQL} AS b, coalesce(stack_kernel, 0) AS vk, "
            "coalesce(stack_user, 0) AS vu, coalesce(waker_stack_kernel, 0) AS wk, "
            "coalesce(waker_stack_user, 0) AS wu, count(*) AS n, sum(wait_ns)::BIGINT AS total, "
            "max(wait_ns) AS longest"
        )
        table = "waits"
    else:
        # Within a bucket nothing is known: its middle stands for the waits in it.
        middle = "(low_ns + low_ns // 16)"
        values = (
            "0 AS cpu, bucket AS b, 0::BIGINT AS vk, 0::BIGINT AS vu, 0::BIGINT AS wk, "
            f"0::BIGINT AS wu, sum(count)::BIGINT AS n, sum(count * {middle})::BIGINT AS total, "
            f"max({middle}) AS longest"
        )
        table = "histograms"
    trace.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {_BASE} AS SELECT "
        f"least(greatest((end_ns - ?) // ?, 0), ?)::INTEGER AS t, coalesce(cgroup, '') AS cgroup, "
        f"coalesce(policy, '') AS policy, kind, {values} FROM {table} GROUP BY ALL",
        [start, bin_ns, bins - 1],
    )


def _choose(trace: Trace, max_rows: int, time_bins: int) -> Coarseness:
    """The first step of the ladder that fits, or its last."""
    steps = [Coarseness(s, -(-time_bins // d), g, m) for s, d, g, m in _LADDER]
    for step in steps:
        query, parameters = _coarse(step, time_bins)
        (found,) = trace.sql(f"SELECT count(*) AS n FROM ({query})", parameters).to_pylist()
        if found["n"] <= max_rows:
            return step
    return steps[-1]


def _coarse(step: Coarseness, time_bins: int) -> tuple[str, list[object]]:
    """Cells at one coarseness: rare stacks and cgroups are put together under -1 and `(other)`."""
    query = f"""
        WITH top_cgroups AS (
          SELECT cgroup FROM {_BASE} GROUP BY 1 ORDER BY sum(total) DESC, 1 LIMIT ?
        ), top_victims AS (
          SELECT vk, vu FROM {_BASE} GROUP BY ALL ORDER BY sum(total) DESC, 1, 2 LIMIT ?
        ), top_wakers AS (
          SELECT wk, wu FROM {_BASE} GROUP BY ALL ORDER BY sum(total) DESC, 1, 2 LIMIT ?
        )
        SELECT t // ? AS t, b >> ? AS b, cpu,
          CASE WHEN g.cgroup IS NULL THEN '{OTHER}' ELSE s.cgroup END AS cgroup, policy, kind,
          CASE WHEN v.vk IS NULL THEN -1 ELSE s.vk END AS vk,
          CASE WHEN v.vk IS NULL THEN -1 ELSE s.vu END AS vu,
          CASE WHEN w.wk IS NULL THEN -1 ELSE s.wk END AS wk,
          CASE WHEN w.wk IS NULL THEN -1 ELSE s.wu END AS wu,
          sum(n)::BIGINT AS n, sum(total)::BIGINT AS total, max(longest) AS longest
        FROM {_BASE} s LEFT JOIN top_cgroups g ON s.cgroup = g.cgroup
          LEFT JOIN top_victims v ON s.vk = v.vk AND s.vu = v.vu
          LEFT JOIN top_wakers w ON s.wk = w.wk AND s.wu = w.wu
        GROUP BY ALL"""
    divisor = -(-time_bins // step.bins)
    return query, [step.cgroups, step.stacks, step.stacks, divisor, step.merge]


def _cells(trace: Trace, step: Coarseness, time_bins: int) -> dict[str, Any]:
    query, parameters = _coarse(step, time_bins)
    table = trace.sql(f"{query} ORDER BY t, b, kind", parameters)

    def numbers(name: str) -> NDArray[np.int64]:
        found: NDArray[np.int64] = table.column(name).to_numpy().astype(np.int64)
        return found

    return {
        **{n: numbers(n) for n in ("t", "b", "cpu", "n", "total", "longest")},
        **{n: table.column(n).to_pylist() for n in ("cgroup", "policy", "kind")},
        "victim": np.stack([numbers("vk"), numbers("vu")], 1),
        "waker": np.stack([numbers("wk"), numbers("wu")], 1),
    }


def _encoded(
    cells: dict[str, Any], names: tuple[str, ...]
) -> tuple[dict[str, list[Any]], dict[str, NDArray[Any]]]:
    """Columns as indices into tables of their distinct values, and the numbers as they are."""
    tables: dict[str, list[Any]] = {}
    rows: dict[str, NDArray[Any]] = {
        "t": cells["t"].astype(np.uint16),
        "b": cells["b"].astype(np.uint8),
        "count": cells["n"].astype(np.uint32),
        "sum_ns": cells["total"].astype(np.float64),
        "max_ns": cells["longest"].astype(np.float64),
    }
    for name in names:
        values = np.asarray(cells[name], dtype=object if name != "cpu" else np.int64)
        present = sorted(set(values.tolist()))
        index = {value: i for i, value in enumerate(present)}
        tables[name] = present
        rows[name] = np.fromiter((index[v] for v in values.tolist()), np.uint16, len(values))
    return tables, rows


def _culprits(
    trace: Trace, source: str, start: int, bin_ns: int, tables: dict[str, list[Any]]
) -> tuple[list[str], dict[str, NDArray[Any]], list[str]]:
    """Who ran meanwhile, by time, cgroup and kind of the wait."""
    empty = {n: np.empty(0, np.float64) for n in ("t", "cgroup", "kind", "culprit", "ns", "count")}
    if source != "waits":
        return [], empty, []
    names = [
        row["culprit_comm"]
        for row in trace.sql(
            "SELECT culprit_comm, sum(culprit_ns) AS ns FROM waits WHERE kind IN (?, ?) "
            "AND culprit_comm IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?",
            [*RUNQ_KINDS, _MAX_CULPRITS],
        ).to_pylist()
    ]
    names.append(OTHER)
    cgroup_index = {name: i for i, name in enumerate(tables["cgroup"])}
    kind_index = {name: i for i, name in enumerate(tables["kind"])}
    culprit_index = {name: i for i, name in enumerate(names)}
    rows = trace.sql(
        "SELECT least(greatest((end_ns - ?) // ?, 0), 65535)::INTEGER AS t, "
        "coalesce(cgroup, '') AS cgroup, kind, culprit_comm, sum(culprit_ns)::BIGINT AS ns, "
        "count(*) AS n FROM waits WHERE kind IN (?, ?) AND culprit_comm IS NOT NULL "
        "GROUP BY ALL ORDER BY ns DESC",
        [start, bin_ns, *RUNQ_KINDS],
    ).to_pylist()
    kept, rest = rows[:MAX_CULPRIT_ROWS], rows[MAX_CULPRIT_ROWS:]
    found: dict[str, NDArray[Any]] = {
        "t": np.array([r["t"] for r in kept], np.uint16),
        "cgroup": np.array(
            [cgroup_index.get(r["cgroup"], cgroup_index.get(OTHER, 0)) for r in kept], np.uint16
        ),
        "kind": np.array([kind_index[r["kind"]] for r in kept], np.uint8),
        "culprit": np.array(
            [culprit_index.get(r["culprit_comm"], len(names) - 1) for r in kept], np.uint16
        ),
        "ns": np.array([r["ns"] for r in kept], np.float64),
        "count": np.array([r["n"] for r in kept], np.uint32),
    }
    note = []
    if rest:
        note.append(f"{len(rest):,} small entries are missing from the culprits")
    return names, found, note


def _totals(trace: Trace, source: str) -> dict[str, dict[str, int]]:
    if source == "waits":
        query = (
            "SELECT kind, count(*) AS count, sum(wait_ns)::BIGINT AS sum_ns, "
            "max(wait_ns) AS max_ns FROM waits GROUP BY kind ORDER BY kind"
        )
    else:
        query = (
            "SELECT kind, sum(s.count)::BIGINT AS count, sum(sum_ns)::BIGINT AS sum_ns, "
            "(SELECT max(low_ns) FROM histograms h WHERE h.kind = s.kind) AS max_ns "
            "FROM histogram_sums s GROUP BY kind ORDER BY kind"
        )
    return {row.pop("kind"): row for row in trace.sql(query).to_pylist()}


def _notes(
    trace: Trace, source: str, cells: dict[str, Any], step: Coarseness, bin_ns: int
) -> list[str]:
    notes = [f"time is in bins of {bin_ns / 1e6:,.3g} ms, latency in 8 steps per power of two"]
    if step.merge:
        notes[0] += f", {1 << step.merge} of them put together"
    if source == "histograms":
        notes.append("only histograms were recorded: sums are of the middle of each bucket")
    elif threshold := min_latency_ns(trace):
        notes.append(f"only waits of {threshold / 1e3:,.3g} us or more were kept")
    whole = max(float(cells["total"].sum()), 1.0)
    for what, is_other in (
        ("cgroups", np.array([c == OTHER for c in cells["cgroup"]], bool)),
        ("stacks", cells["victim"][:, 0] == -1),
        ("waker stacks", cells["waker"][:, 0] == -1),
    ):
        if is_other.any():
            share = float(cells["total"][is_other].sum()) / whole
            notes.append(f"rare {what}, {share:.2%} of the time, are put together as {OTHER}")
    return notes
