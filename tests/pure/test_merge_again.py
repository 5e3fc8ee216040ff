"""What was merged is merged with more: as if all of it had been merged at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.flame import flame
from sltrace.analysis.latency import stat
from sltrace.analysis.meta import gaps, recorded_ns
from sltrace.errors import UsageError
from sltrace.model import PID_SPACE
from sltrace.trace.merge import merge
from sltrace.trace.notes import looked_in_part
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, clock, trace_of
from tests.support.traces import SECOND

KERNEL = 0xFFFFFFFF81000000


def machine(folder: Path, host: str, after: int = 0, boot: int = UNIX) -> Trace:
    """Each has process 7, cgroup 1 and stack 5 at one kernel address."""
    name = f"kernel_{host}"
    return trace_of(
        folder,
        f"{host}{after}",
        [{"end_ns": (101 + after) * SECOND, "pid": 7, "tid": 7, "stack_kernel": 5, "cpu": 1}],
        host,
        boot,
        meta={
            "clock": clock(boot, (100 + after) * SECOND),
            "sources": {"go": {"sampled": len(host)}},
            "command_line": ["sltrace", "record", host],
        },
        stacks=[{"stack_id": 5, "space": "kernel", "pid": 0, "addresses": [KERNEL]}],
        frames=[{"space": "kernel", "pid": 0, "address": KERNEL, "name": name}],
        cgroups=[{"cgroup_id": 1, "path": "/", "unit": f"{host}.service"}],
    )


def merged(path: Path, *traces: Trace) -> Trace:
    merge(traces, path)
    return Trace.open(path)


def told(trace: Trace) -> dict[str, Any]:
    """What it says of each host: its names, numbers and times, as an analysis sees them."""
    assert len(trace.table("cgroups")) == len(trace.table("stacks")) == 3
    rows = trace.table("waits", ["cgroup", "pid", "cpu", "node"]).to_pylist()
    units = {g.keys: g.count for g in stat(trace, ["cgroup", "unit"]).groups}
    stacks = {folded for folded, _ in _folded(trace)}
    return {
        "waits": {row.pop("cgroup"): row for row in rows},
        "units": units,
        "stacks": stacks,
        "merged": {
            m["host"]: {k: m[k] for k in ("pid_offset", "cpu_offset", "node_offset", "start_ns")}
            | {"command": m["command_line"][-1], "machine": m["machine"]}
            for m in trace.meta["merged"]
        },
    }


def _folded(trace: Trace) -> list[tuple[tuple[str, ...], int]]:
    found = flame(trace, roots=["cgroup"])
    return [
        (tuple(found.names[i] for i in stack), count)
        for stack, count in zip(found.stacks, found.counts, strict=True)
    ]


@pytest.mark.parametrize("first", ["merged", "other"])
def test_a_merged_trace_and_another_are_all_of_their_machines(tmp_path: Path, first: str) -> None:
    # They booted at different times.
    traces = [machine(tmp_path, h, boot=UNIX + i * 5000) for i, h in enumerate(("x", "yy", "zzz"))]
    x, y, z = traces
    if first == "merged":
        again = merged(tmp_path / "again.slt", merged(tmp_path / "m.slt", x, y), z)
        at_once = merged(tmp_path / "once.slt", x, y, z)
    else:
        again = merged(tmp_path / "again.slt", z, merged(tmp_path / "m.slt", x, y))
        at_once = merged(tmp_path / "once.slt", z, x, y)
    found = told(again)
    assert found == told(at_once)
    assert {row["pid"] for row in found["waits"].values()} == {7 + i * PID_SPACE for i in range(3)}
    assert found["units"] == {(f"{h}:/", f"{h}.service"): 1 for h in ("x", "yy", "zzz")}
    assert found["stacks"] == {(f"{h}:/", f"kernel_{h}") for h in ("x", "yy", "zzz")}
    assert again.meta["cpus"] == 6
    assert sorted(s["sampled"] for s in again.sources("go")) == [1, 2, 3]


def test_what_was_not_recorded_between_is_not_when_merged_again(tmp_path: Path) -> None:
    early, late = machine(tmp_path, "x"), machine(tmp_path, "x", after=100)
    last = machine(tmp_path, "x", after=300)
    whole = merged(tmp_path / "again.slt", merged(tmp_path / "m.slt", early, late), last)
    assert recorded_ns(whole) == 30 * SECOND
    assert gaps(whole) == [(110 * SECOND, 200 * SECOND), (210 * SECOND, 400 * SECOND)]
    assert {m["machine"] for m in whole.meta["merged"]} == {0}


def test_a_machine_that_is_in_both_is_refused(tmp_path: Path) -> None:
    x, y = machine(tmp_path, "x"), machine(tmp_path, "yy")
    both, later = merged(tmp_path / "m.slt", x, y), machine(tmp_path, "x", after=50)
    shutil.copytree(both.path, tmp_path / "copy.slt")
    for other in (later, Trace.open(tmp_path / "copy.slt")):
        for pair in ((both, other), (other, both)):
            with pytest.raises(UsageError, match=r"both have waits of x, .*all at once"):
                merge(pair, tmp_path / "again.slt")


def test_what_traces_of_one_name_say_of_their_sources_is_kept(tmp_path: Path) -> None:
    whole = merged(tmp_path / "m.slt", machine(tmp_path, "x"), machine(tmp_path, "yy"))
    assert [m["trace"] for m in whole.meta["merged"]] == ["made.slt", "made.slt#2"]
    assert sorted(s["sampled"] for s in whole.sources("go")) == [1, 2]


def test_a_process_in_a_note_has_the_id_of_its_recording() -> None:
    go = {"budget": 0.03, "processes": [{"pid": 7, "level": 1, "looked": 0.27}]}
    (note,) = looked_in_part({"sources": {"made.slt#2: go": go}})
    assert "looked at Go process 7 of made.slt#2 27.0% of the time" in note
