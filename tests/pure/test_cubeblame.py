"""The page's blame table against DuckDB, however coarse."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sltrace.analysis import cells, cubeaxes
from sltrace.analysis.blame import blame
from sltrace.analysis.cube import build_cube
from sltrace.analysis.cubeaxes import Origin
from sltrace.analysis.cubeblame import BlameTable, blame_table
from sltrace.analysis.cubestacks import FrameTable, rank_stacks
from sltrace.analysis.meta import node_of_cpu
from sltrace.analysis.part import Whole
from sltrace.analysis.selection import Selection
from sltrace.analysis.slices import CgroupRan
from sltrace.model import OTHERS
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_blame import one_cpu
from tests.support.traces import SECOND, make_trace

BLAMED = "kind IN ('runq_wakeup', 'runq_preempt', 'throttled')"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    rng = np.random.default_rng(5)
    kinds = ("runq_wakeup", "runq_preempt", "throttled", "blocked")
    rows = []
    for _ in range(3000):
        kind, wait = str(rng.choice(kinds)), int(rng.lognormal(12, 2))
        culprit = None if kind == "throttled" else (None, 0, 7, 8)[rng.integers(4)]
        rows.append(
            {
                "end_ns": int(rng.integers(0, 10 * SECOND)),
                "wait_ns": wait,
                "kind": kind,
                "cpu": int(rng.integers(4)),
                "pid": 100 + int(rng.integers(3)),
                "comm": f"c{rng.integers(5)}",
                "cgroup": f"/g{rng.integers(20)}",
                "culprit_tid": culprit,
                "culprit_pid": culprit,
                "culprit_comm": f"hog{culprit}",
                "culprit_cgroup": f"/h{culprit}",
                "culprit_ns": int(wait * rng.uniform(0, 1.5)),
                "culprit_others": int(rng.integers(2)),
                "flags": int(rng.choice([0, 8])),
            }
        )
    tasks = [{"pid": 7, "tid": 7, "comm": "hog", "from_ns": 0, "cmdline": ""}]
    return Trace.open(make_trace(tmp_path_factory.mktemp("blame"), rows, tasks=tasks))


def table(trace: Trace, max_rows: int) -> BlameTable:
    origin = Origin.of(trace, 100)
    with cubeaxes.beside(trace, origin):
        names = {c: cubeaxes.named(trace, origin.sql, c) for c in ("kind", "cgroup", "comm")}
    plain = [origin.time, cubeaxes.BUCKETS, cubeaxes.cpus(trace, origin)]
    stacks = rank_stacks(trace, "culprit", FrameTable(), 100)
    return blame_table(
        trace,
        origin,
        names=names,
        plain=plain,
        stacks=stacks,
        level={},
        ran=CgroupRan.of(trace),
        max_rows=max_rows,
    )


@pytest.mark.parametrize("max_rows", [100_000, 500, 50, 1])
def test_every_nanosecond_is_in_one_row(trace: Trace, max_rows: int) -> None:
    found = table(trace, max_rows)
    assert len(found.rows["t"]) <= max(max_rows, 3)
    (row,) = trace.sql(f"SELECT sum(wait_ns)::BIGINT AS ns FROM waits WHERE {BLAMED}").to_pylist()
    assert found.rows["sum_ns"].sum() == row["ns"]
    assert (max_rows < 1000) == bool(found.coarse)


@pytest.mark.parametrize("max_rows", [100_000, 4000, 1500, 300, 50])
def test_cgroups_and_threads_are_told_apart_before_processes(tmp_path: Path, max_rows: int) -> None:
    """Each victim is a process of its own; which names are among others is told."""
    rng = np.random.default_rng(6)
    rows = [
        {
            "end_ns": int(rng.integers(0, 10 * SECOND)),
            "wait_ns": int(10 ** rng.uniform(2, 6)),
            "cpu": int(rng.integers(8)),
            "pid": 100 + i,
            "cgroup": f"/g{rng.zipf(1.6) % 30}",
            "comm": f"c{rng.integers(12)}",
            "culprit_tid": 7,
            "culprit_comm": f"hog{rng.integers(3)}",
            "culprit_ns": 50,
        }
        for i in range(3000)
    ]
    trace = Trace.open(make_trace(tmp_path, rows))
    found = table(trace, max_rows)
    assert len(found.rows["t"]) <= max_rows
    for axis in ("cgroup", "comm"):
        sums: Counter[str | None] = Counter()
        for victim, ns in zip(found.rows["victim"], found.rows["sum_ns"], strict=True):
            sums[getattr(found.victims[victim], axis)] += int(ns)
        waited = trace.sql(
            f"SELECT {axis} AS name, sum(wait_ns)::BIGINT AS ns FROM waits GROUP BY 1"
        ).to_pylist()
        expected = {row["name"]: row["ns"] for row in waited}
        named = {name: ns for name, ns in expected.items() if name not in found.lost[axis]}
        assert {name: ns for name, ns in sums.items() if name is not None} == named
        assert sums[None] == sum(expected.values()) - sum(named.values())
    processes = {victim.process for victim in found.victims}
    if max_rows <= 4000:
        assert len(processes) < 700
    if max_rows >= 4000:
        assert not found.lost["cgroup"]


def test_names_are_those_that_the_cube_has(trace: Trace) -> None:
    """What has no row needs none here, and leaves room for times and latencies."""
    cube = build_cube(trace, max_rows=1500)
    assert 2 < len(cube.cgroups) < 20
    assert OTHERS in cube.cgroups
    named = {victim.cgroup for victim in cube.blame.victims}
    assert named == {None if name == OTHERS else name for name in cube.cgroups}
    assert not cube.blame.lost["cgroup"]


def test_no_step_brings_back_what_was_together(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_BATCH", 100)
    origin = Origin.of(trace, 100)
    names = cubeaxes.named(trace, origin.sql, "cgroup")
    steps = [(("cgroup", 15),), (("t", 1 << 16),)]
    with trace.registered(names.table):
        source = f"{origin.sql} w {names.join}"
        found = cells.summed_cells(
            trace, [origin.time, names.axis], source, 30, steps, {"cgroup": 3}
        )
    assert found.level["cgroup"] == 3
    assert set(found.digits["cgroup"]) == {0, 1, 2, 3}


def test_who_ran(trace: Trace) -> None:
    found = table(trace, 100_000)
    sums: Counter[tuple[str, str]] = Counter()
    for index, ns in zip(found.rows["culprit"], found.rows["sum_ns"], strict=True):
        culprit = found.culprits[index]
        sums[culprit.what, culprit.comm] += int(ns)
    held = "least(culprit_ns, wait_ns)"
    expected = trace.sql(
        f"""
        SELECT what, comm, sum(ns)::BIGINT AS ns FROM (
          SELECT 'task' AS what, culprit_comm AS comm, {held} AS ns FROM waits
            WHERE {BLAMED} AND culprit_tid > 0
          UNION ALL SELECT 'idle', '', {held} FROM waits WHERE {BLAMED} AND culprit_tid = 0
          UNION ALL SELECT 'quota', '', wait_ns FROM waits WHERE kind = 'throttled'
          UNION ALL SELECT 'unknown', '', wait_ns FROM waits
            WHERE {BLAMED} AND kind <> 'throttled' AND culprit_tid IS NULL
          UNION ALL SELECT CASE WHEN culprit_others > 0 AND flags = 0 THEN 'others'
            ELSE 'unknown' END, '', wait_ns - {held} FROM waits
            WHERE {BLAMED} AND culprit_tid IS NOT NULL)
        GROUP BY ALL HAVING sum(ns) > 0
        """
    ).to_pylist()
    assert sums == {(row["what"], row["comm"]): row["ns"] for row in expected}
    assert {p.process for p in found.culprits} == {"", "hog (7)", "hog8 (8)"}


def by_cgroup(table: BlameTable) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Time and waits as the page adds them up by cgroup."""
    sums: Counter[tuple[str, str, str]] = Counter()
    waits: Counter[tuple[str, str, str]] = Counter()
    columns = [table.rows[c] for c in ("victim", "culprit", "sum_ns", "count")]
    for victim, culprit, ns, count in zip(*columns, strict=True):
        party = table.culprits[culprit]
        beside = party.what == "others" and bool(party.cgroup)
        key = (table.victims[victim].cgroup, "task" if beside else party.what, party.cgroup)
        sums[key] += int(ns)
        waits[key] += 0 if beside else int(count)
    return {key: (ns, waits[key]) for key, ns in sums.items()}


def test_by_cgroup_it_is_what_the_command_says(tmp_path: Path) -> None:
    rows, _ = one_cpu(3, 800)
    whole = Whole(Trace.open(make_trace(tmp_path, rows)))
    assert whole.ran.rows is not None
    assert whole.ran.rows.num_rows > 100
    last = max(row["end_ns"] for row in rows)
    for start, end in ((None, None), (last // 3, 2 * last // 3)):
        blamed = blame(whole.trace, selection=Selection(start_ns=start, end_ns=end)).cells
        cube = whole.cube() if end is None else whole.part(start or 0, end, 300)
        expected = {
            (str(c.victim), c.what, str(c.culprit or "")): (c.wait_ns, c.waits) for c in blamed
        }
        assert len(expected) > 9
        assert by_cgroup(cube.blame) == expected
    # By thread nobody knows more than one culprit, and each wait with others counts once there.
    found = whole.cube().blame
    others = [p.what == "others" for p in found.culprits]
    mine = [np.array(others)[found.rows["culprit"]] * found.rows[c] for c in ("sum_ns", "count")]
    by_comm = [c for c in blame(whole.trace, "comm").cells if c.what == "others"]
    assert [int(m.sum()) for m in mine] == [
        sum(c.wait_ns for c in by_comm), sum(c.waits for c in by_comm)
    ]  # fmt: skip


def test_histograms_blame_nobody(tmp_path: Path) -> None:
    found = table(Trace.open(make_trace(tmp_path, meta={"histogram_only": True})), 10)
    assert not found.victims
    assert not len(found.rows["t"])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"0": [0, 2], "1": [1]}, {0: 0, 2: 0, 1: 1}),
        ({"x": [0], "-1": [1], "2": 3, "3": ["4", -5, 6]}, {6: 3}),
        ([1], {}),
        (None, {}),
    ],
)
def test_nodes_of_whatever_the_file_says(
    tmp_path: Path, nodes: object, expected: dict[int, int]
) -> None:
    assert node_of_cpu(Trace.open(make_trace(tmp_path, meta={"nodes": nodes}))) == expected


def test_stacks_of_culprits(tmp_path: Path) -> None:
    waits = [
        {"kind": "gil", "wait_ns": 100, "culprit_tid": 7, "culprit_ns": 60, "culprit_stack": 1},
        {"kind": "gil", "wait_ns": 50, "culprit_tid": 8, "culprit_ns": 50, "culprit_stack": 2},
        {"kind": "gil", "wait_ns": 9, "culprit_others": 2},
        {"kind": "runq_preempt", "wait_ns": 30, "culprit_tid": 7, "culprit_ns": 30},
    ]
    stacks = [
        {"stack_id": i, "space": "python", "pid": 100, "addresses": [10 + i, 5]} for i in (1, 2)
    ]
    frames = [
        {"space": "python", "pid": 100, "address": a, "name": f"f{a}", "language": "python"}
        for a in (5, 11, 12)
    ]
    trace = Trace.open(make_trace(tmp_path, waits, stacks=stacks, frames=frames))
    cube = build_cube(trace)
    sums: Counter[tuple[str, tuple[str, ...]]] = Counter()
    columns = [cube.blame.rows[c] for c in ("stack", "kind", "sum_ns")]
    for stack, kind, ns in zip(*columns, strict=True):
        sums[cube.kinds[kind], tuple(cube.frames[f] for f in cube.stacks[stack])] += int(ns)
    assert sums == {
        ("gil", ("f5", "f11")): 60,
        ("gil", ("f5", "f12")): 50,
        ("gil", ()): 40 + 9,
        ("runq_preempt", ()): 30,
    }
