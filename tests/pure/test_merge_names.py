"""Merged traces: ids and names of machines stay apart."""

from __future__ import annotations

from pathlib import Path

from sltrace.analysis.blame import blame
from sltrace.analysis.flame import flame
from sltrace.analysis.latency import stat
from sltrace.analysis.losses import losses
from sltrace.model import PID_SPACE
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, clock, trace_of
from tests.support.traces import SECOND

IDLE = {"culprit_pid": 0, "culprit_tid": 0, "culprit_comm": "idle", "culprit_ns": 1000}


def test_ids_and_names_of_machines_stay_apart(tmp_path: Path) -> None:
    """Both have pid 7, stack 5 at one kernel address, cgroup 1 and an idle CPU."""
    kernel = 0xFFFFFFFF81000000
    traces = []
    for i, host in enumerate(("one", "two")):
        stacks = [
            {"stack_id": 5, "space": "kernel", "pid": 0, "addresses": [kernel]},
            {"stack_id": 6, "space": "user", "pid": 7, "addresses": [0x400000, 0x7FFF00000000]},
        ]
        frames = [
            {"space": "kernel", "pid": 0, "address": kernel, "name": f"kernel_{host}"},
            {"space": "user", "pid": 7, "address": 0x400000, "name": f"leaf_{host}"},
            {"space": "user", "pid": 7, "address": 0x7FFF00000000, "name": f"root_{host}"},
        ]
        hog = {"culprit_pid": 9, "culprit_tid": 9, "culprit_comm": "hog", "culprit_ns": 900}
        end = {"end_ns": 101 * SECOND, "pid": 7, "tid": 7}
        waits = [
            {**end, "stack_kernel": 5, "stack_user": 6, **hog, "culprit_cgroup": "/h"},
            {**end, **IDLE},
        ]
        second = {"start_ns": 100 * SECOND, "end_ns": 101 * SECOND}
        counters = [{"cpu": 0, "name": "ring_full", "class": "loss", "value": 3, **second}]
        sums = [{"cgroup_id": -1, "kind": "runq_wakeup", "count": 4, "sum_ns": 9}]
        tasks = [{"pid": 7, "tid": 7, "comm": "web", "from_ns": 0, "ppid": 0}]
        cgroups = [{"cgroup_id": 1, "path": "/", "unit": f"{host}.service"}]
        traces.append(
            trace_of(
                tmp_path,
                host,
                waits,
                host,
                UNIX + i * 5 * SECOND,
                stacks=stacks,
                frames=frames,
                counters=counters,
                histogram_sums=sums,
                tasks=tasks,
                cgroups=cgroups,
            )
        )
    merge(traces, tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    graph = flame(merged)
    stacks_named = {tuple(graph.names[i] for i in s) for s in graph.stacks}
    assert stacks_named == {
        ("root_one", "leaf_one", "kernel_one"),
        ("root_two", "leaf_two", "kernel_two"),
        ("[no stack recorded]",),
    }
    cells = blame(merged, "pid").cells
    assert {(c.victim, c.what, c.culprit) for c in cells if c.what != "others"} >= {
        (7, "task", 9),
        (7 + PID_SPACE, "task", 9 + PID_SPACE),
        (7, "idle", None),
        (7 + PID_SPACE, "idle", None),
    }
    by_unit = {g.keys[0]: g.count for g in stat(merged, ["unit"]).groups}
    assert by_unit == {"one.service": 2, "two.service": 2}
    assert losses(merged).lost == 6
    assert sorted({i.cpu for i in losses(merged).intervals}) == [0, 2]
    tasks_found = merged.table("tasks").to_pylist()
    assert [(t["pid"], t["from_ns"], t["ppid"]) for t in tasks_found] == [
        (7, 0, 0),
        (7 + PID_SPACE, 0, 0),
    ]
    overflow = merged.sql("SELECT count(*) AS n FROM histogram_sums WHERE cgroup_id = -1")
    assert overflow["n"][0].as_py() == 2


def test_one_machine_keeps_its_ids_and_names(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a", [{"end_ns": 101 * SECOND, "tid": 1}], "one", UNIX)
    later = {"clock": clock(UNIX + SECOND // 2, 200 * SECOND)}
    b = trace_of(tmp_path, "b", [{"end_ns": 201 * SECOND, "tid": 1}], "one", 0, meta=later)
    parts = merge([a, b], tmp_path / "m.slt")
    assert [p.machine for p in parts] == [0, 0]
    merged = Trace.open(tmp_path / "m.slt")
    assert sorted(merged.table("waits", ["end_ns"])["end_ns"].to_pylist()) == [
        101 * SECOND,
        201 * SECOND,
    ]
    (group,) = stat(merged, ["cgroup", "tid"]).groups
    assert (group.keys, group.count) == (("/", 1), 2)
    assert merged.meta["cpus"] == 2
    assert merged.meta["clock"]["start_ns"] == 100 * SECOND
    assert merged.meta["clock"]["end_ns"] == 210 * SECOND
    # A reboot makes it another machine.
    rebooted = trace_of(tmp_path, "c", [{"end_ns": 101 * SECOND}], "one", UNIX + 900 * SECOND)
    assert [p.label for p in merge([a, rebooted], tmp_path / "n.slt")] == ["one", "one#2"]
