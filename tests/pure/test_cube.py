"""The report's cube against DuckDB on the same trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sltrace.analysis.cells import bucket_sql
from sltrace.analysis.cube import build_cube
from sltrace.buckets import bucket_of, lower_bounds
from sltrace.model import OTHERS
from sltrace.trace.reader import Trace
from tests.support.traces import META, SECOND, make_trace


def random_waits(n: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "end_ns": int(rng.integers(0, 10 * SECOND)),
            "wait_ns": int(rng.lognormal(11, 3)),
            "kind": str(rng.choice(["runq_wakeup", "runq_preempt", "throttled", "blocked"])),
            "cgroup": f"/g{int(rng.zipf(1.5)) % 90}",
            "policy": str(rng.choice(["OTHER", "FIFO"])),
            "cpu": int(rng.integers(0, 4)),
            "culprit_comm": str(rng.choice(["hog", "miner", "idle"])),
            "culprit_ns": 5,
            "stack_kernel": int(rng.integers(1, 40)),
            "stack_user": int(rng.integers(100, 140)),
        }
        for _ in range(n)
    ]


STACKS = [
    {"stack_id": i, "space": "kernel", "pid": 0, "addresses": [1000 + i, 1]} for i in range(1, 40)
] + [
    {"stack_id": i, "space": "user", "pid": 100, "addresses": [5000 + i, 2]}
    for i in range(100, 140)
]

FRAMES = [
    {"space": space, "pid": pid, "address": address, "name": f"f{address}", "language": language}
    for space, pid, language, addresses in (
        ("kernel", 0, "kernel", [1, *range(1001, 1040)]),
        ("user", 100, "native", [2, *range(5100, 5140)]),
    )
    for address in addresses
]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    path = make_trace(
        tmp_path_factory.mktemp("cube"), random_waits(4000), stacks=STACKS, frames=FRAMES
    )
    return Trace.open(path)


def test_bucket_sql_is_the_bucket_function(trace: Trace) -> None:
    edges = lower_bounds()
    powers = 2 ** np.arange(62, dtype=np.int64)
    waits = np.unique(np.concatenate([edges, edges[1:] - 1, edges + 1, powers, powers - 1]))
    trace.connection.register("edges", pa.table({"wait_ns": waits}))
    found = trace.sql(f"SELECT {bucket_sql('wait_ns')} AS b FROM edges")["b"].to_numpy()
    assert (found == bucket_of(waits)).all()


@pytest.mark.parametrize("max_rows", [400_000, 3000, 700, 100, 1])
def test_totals_hold_however_coarse(trace: Trace, max_rows: int) -> None:
    cube = build_cube(trace, max_rows=max_rows)
    axes: list[tuple[str, list[Any]]]
    axes = [("kind", cube.kinds), ("policy", cube.policies), ("cpu", cube.cpus)]
    for axis, names in axes:
        key = f"cpu // {cube.cpu_group} * {cube.cpu_group}" if axis == "cpu" else axis
        kept = [n for n in names if n != OTHERS]
        wanted = trace.sql(
            f"SELECT CASE WHEN list_contains(?, {key}) THEN {key} END AS k, count(*) AS n, "
            "sum(wait_ns)::BIGINT AS s, max(wait_ns) AS m FROM waits GROUP BY 1",
            [kept],
        ).to_pylist()
        assert len(wanted) == len(names)
        for row in wanted:
            mine = cube.rows[axis] == names.index(OTHERS if row["k"] is None else row["k"])
            assert cube.rows["count"][mine].sum() == row["n"]
            assert cube.rows["sum_ns"][mine].sum() == row["s"]
            assert cube.rows["max_ns"][mine].max() == row["m"]
    assert {k: t["count"] for k, t in cube.totals.items()} == dict(
        trace.connection.sql("SELECT kind, count(*) FROM waits GROUP BY 1").fetchall()
    )


def test_notes_have_units_that_fit(tmp_path: Path) -> None:
    clock = META["clock"] | {"end_ns": 1000 * SECOND}
    meta = {"clock": clock, "min_latency_ns": 1_000_000}
    notes = build_cube(Trace.open(make_trace(tmp_path, [{}], meta=meta))).notes
    assert notes[0].startswith("time is in bins of 3.33 s, ")
    assert notes[1] == "only waits of 1.00 ms or more were kept"


def test_coarser_cubes_are_smaller_and_say_so(trace: Trace) -> None:
    fine, coarse = build_cube(trace), build_cube(trace, max_rows=700)
    assert len(coarse.rows["t"]) <= 700 < len(fine.rows["t"])
    others = coarse.rows["cgroup"] == coarse.cgroups.index(OTHERS)
    share = coarse.rows["sum_ns"][others].sum() / coarse.rows["sum_ns"].sum()
    said = f"cgroups with little time, {share:.2%} of it all, are put together as {OTHERS}"
    assert said in coarse.notes
    assert any("stacks" in note for note in coarse.notes)
    assert coarse.bin_ns > fine.bin_ns


def test_cells_are_where_the_waits_were(trace: Trace) -> None:
    cube = build_cube(trace)
    bins = (trace.table("waits", ["end_ns"])["end_ns"].to_numpy() - cube.start_ns) // cube.bin_ns
    counted = np.bincount(cube.rows["t"], cube.rows["count"], minlength=cube.n_bins)
    assert (counted == np.bincount(bins, minlength=cube.n_bins)).all()


def test_stacks_are_whole_and_root_first(trace: Trace) -> None:
    cube = build_cube(trace)
    assert cube.stacks[0] == []
    named = {tuple(cube.frames[f] for f in stack) for stack in cube.stacks[1:]}
    assert all(len(stack) == 4 for stack in named)
    assert len(cube.frame_kinds) == len(cube.frames)
    kinds = [[cube.frame_kinds[f] for f in stack] for stack in cube.stacks[1:]]
    assert all(k[2:] == ["kernel", "kernel"] for k in kinds)


def test_a_trace_without_waits(tmp_path: Path) -> None:
    cube = build_cube(Trace.open(make_trace(tmp_path)))
    assert len(cube.rows["t"]) == 0
    assert cube.totals == {}


def test_histograms_only(tmp_path: Path) -> None:
    low = lower_bounds()
    times = [(s * SECOND, (s + 1) * SECOND) for s in range(9)]
    both: dict[str, Any] = {"cgroup_id": 1, "policy": "OTHER", "kind": "runq_wakeup"}
    rows, sums = [], []
    for second, (start, end) in enumerate(times):
        of = both | {"start_ns": start, "end_ns": end, "cgroup": f"/{second % 2}"}
        found = [(i, i + 1) for i in range(second, 54, 9)]
        rows += [of | {"bucket": i, "low_ns": int(low[i]), "count": n} for i, n in found]
        # A little more than if all were as short as their bucket allows.
        total = sum(int(low[i]) * n for i, n in found) + 7
        sums.append(of | {"count": sum(n for _, n in found), "sum_ns": total})
    path = make_trace(tmp_path, meta={"histogram_only": True}, histograms=rows, histogram_sums=sums)
    cube = build_cube(Trace.open(path))
    assert cube.source == "histograms"
    assert cube.rows["count"].sum() == sum(s["count"] for s in sums)
    assert sorted(set(cube.rows["b"].tolist())) == list(range(54))
    # Each has the total that was recorded with it, but for rounding.
    for number, name in enumerate(cube.cgroups):
        found = cube.rows["sum_ns"][cube.rows["cgroup"] == number].sum()
        told = sum(s["sum_ns"] for s in sums if s["cgroup"] == name)
        assert abs(int(found) - told) <= 54
    assert cube.totals["runq_wakeup"]["sum_ns"] == sum(s["sum_ns"] for s in sums)
    # Cells with one wait, too, and none is shorter than a histogram.
    assert np.all(cube.rows["sum_ns"] >= cube.rows["max_ns"])
    assert cube.bin_ns == SECOND
    assert any("histograms" in note for note in cube.notes)
    assert not any("CPU" in note for note in build_cube(Trace.open(path), max_rows=5).notes)


@pytest.mark.parametrize("max_rows", [3000, 700, 300])
def test_what_is_drawn_stays_fine(trace: Trace, max_rows: int) -> None:
    """Grids have the finest time, buckets and CPUs, and add up to the coarse rows."""
    cube = build_cube(trace, max_rows=max_rows)
    assert cube.time_merged > 1
    assert set(cube.grids) == {"b", "cpu", "cgroup", "comm", "policy", "kind"}
    width = cube.bin_ns // cube.time_merged
    found = {
        "b": bucket_sql("wait_ns"),
        "cpu": "cpu",
        "cgroup": "cgroup",
        "policy": "policy",
        "kind": "kind",
    }
    for axis, sql in found.items():
        grid = cube.grids[axis]
        names = {"cgroup": cube.cgroups, "policy": cube.policies, "kind": cube.kinds}.get(axis)
        wanted = trace.sql(
            f"SELECT (end_ns - ?) // ? AS t, {sql} AS y, kind, count(*) AS n, "
            "sum(wait_ns)::BIGINT AS ns, max(wait_ns) AS longest FROM waits GROUP BY ALL",
            [cube.start_ns, width],
        ).to_pylist()
        sums: dict[tuple[Any, ...], list[int]] = {}
        for row in wanted:
            y = row["y"]
            if names:
                y = names.index(y if y in names else OTHERS)
            kind = cube.kinds.index(row["kind"] if row["kind"] in cube.kinds else OTHERS)
            one = sums.setdefault((row["t"], y, kind), [0, 0, 0])
            one[:] = [one[0] + row["n"], one[1] + row["ns"], max(one[2], row["longest"])]
        mine = zip(*(grid[c].tolist() for c in ("t", "y", "kind")), strict=True)
        values = zip(*(grid[c].tolist() for c in ("count", "sum_ns", "max_ns")), strict=True)
        assert dict(zip(mine, map(list, values), strict=True)) == sums, axis


def test_a_fine_cube_needs_no_grids(trace: Trace) -> None:
    assert build_cube(trace).grids == {}


def test_cpus_that_are_put_together_are_drawn_one_by_one(tmp_path: Path) -> None:
    """Also where time is as fine as it can be selected."""
    waits = [
        {"end_ns": ns, "cpu": cpu, "wait_ns": 1000 + cpu}
        for ns in range(SECOND // 2, 10 * SECOND, SECOND // 10)
        for cpu in range(4)
    ]
    cube = build_cube(Trace.open(make_trace(tmp_path, waits)), max_rows=len(waits) // 2)
    assert (cube.time_merged, cube.buckets_merged, cube.cpu_group) == (1, 1, 2)
    assert set(cube.grids) == {"cpu"}
    columns = ("t", "y", "count", "sum_ns")
    found = zip(*(cube.grids["cpu"][name].tolist() for name in columns), strict=True)
    assert set(found) == {
        ((w["end_ns"] - cube.start_ns) // cube.bin_ns, w["cpu"], 1, w["wait_ns"]) for w in waits
    }
