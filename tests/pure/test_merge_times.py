"""Machines of a merged trace that were recorded at different times: rates and shares of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from sltrace.analysis.bounds import measure
from sltrace.analysis.check import check
from sltrace.analysis.diagnosis import diagnose
from sltrace.analysis.diff import diff
from sltrace.analysis.meta import machine_times, machines_of, recorded_ns
from sltrace.analysis.rules import parse_rule
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import two_traces
from sltrace.model import PID_SPACE
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, clock, trace_of
from tests.support.traces import SECOND

HOG = {"culprit_pid": 9, "culprit_tid": 9, "culprit_comm": "hog", "culprit_ns": SECOND // 2}


@pytest.fixture
def merged(tmp_path: Path) -> Trace:
    """web1 for 10 s with 1 s of waiting, and later web2 for 90 s with 9 s of it."""
    row = {"wait_ns": SECOND, "pid": 7, "tid": 7, "cpu": 1, "node": 1, **HOG}
    a = trace_of(tmp_path, "a", [{"end_ns": 105 * SECOND, **row}], "web1", UNIX)
    meta = {"clock": clock(UNIX, 200 * SECOND, 90 * SECOND)}
    rows = [{"end_ns": (205 + 3 * i) * SECOND, **row} for i in range(9)]
    b = trace_of(tmp_path, "b", rows, "web2", UNIX, meta=meta)
    merge([a, b], tmp_path / "m.slt")
    return Trace.open(tmp_path / "m.slt")


def test_which_machines_waits_can_be_of(merged: Trace) -> None:
    for values, machines in (
        ({}, None),
        ({"comm": ("web",)}, None),
        ({"cgroup": ("web1:/",)}, {0}),
        ({"cgroup": ("web2:/", "web1:/x")}, {0, 1}),
        ({"cgroup": ("web2:/", None)}, None),
        ({"cgroup": ("/",)}, None),
        ({"pid": (7,)}, {0}),
        ({"tid": (str(7 + PID_SPACE),), "comm": ("web",)}, {1}),
        ({"cpu": ("1",)}, {0}),
        ({"cpu": (2,), "node": ("2",)}, {1}),
        ({"cpu": (2,), "pid": (7,)}, None),
    ):
        assert machines_of(merged, values) == machines, values
    assert recorded_ns(merged) == 100 * SECOND
    assert recorded_ns(merged, machines=frozenset({1})) == 90 * SECOND
    assert [(m.host, m.first_cpu, m.gaps) for m in machine_times(merged, 0, 400 * SECOND)] == [
        ("web1", 0, [(0, 100 * SECOND), (110 * SECOND, 400 * SECOND)]),
        ("web2", 2, [(0, 200 * SECOND), (290 * SECOND, 400 * SECOND)]),
    ]


@pytest.mark.parametrize("where", ["cgroup=web1:/", "pid=7", "cpu=1", "cgroup=web2:/", "cpu=3"])
def test_rates_and_shares_of_one_machine_are_of_its_time(merged: Trace, where: str) -> None:
    for figure, value in (("share", "10%"), ("rate", "0.1/s")):
        for operator, verdict in ((">=", "pass"), (">", "fail")):
            rule = parse_rule(f"{figure}(runq where {where}) {operator} {value}")
            result = check(merged, [rule])
            assert result.verdict == verdict
            assert not any("different times" in note for note in result.notes)


@pytest.mark.parametrize(
    ("host", "start", "waits", "where", "share"),
    [
        # Of 10 s an hour later, as the other began to sleep between them; the first, too.
        ("web1", 3700, [(3702, 32), (3703, 1)], "", (1 + 3) / 20),
        ("web1", 3700, [(3702, 3700), (3704, 1)], "", (10 + 3) / 20),
        # Of 10 s that began 20 s after those of the other machine.
        ("web2", 120, [(123, 12), (129, 5)], " where cgroup=web2:/", 8 / 10),
        ("web2", 120, [(123, 12), (129, 5)], "", (1 + 8) / 20),
        # The other was recorded meanwhile.
        ("web2", 105, [(106, 3), (107, 1)], "", (1 + 4 - 1) / 15),
    ],
)
def test_what_was_not_recorded_is_no_share_of_what_was(
    tmp_path: Path, host: str, start: int, waits: list[tuple[int, int]], where: str, share: float
) -> None:
    """A wait that ended in a recording may have begun before it, in no recording."""
    row = {"kind": "blocked", "tid": 7, "pid": 7}
    first = [row | {"end_ns": 104 * SECOND, "wait_ns": SECOND}]
    a = trace_of(tmp_path, "a", first, "web1", UNIX)
    rows = [row | {"end_ns": end * SECOND, "wait_ns": long * SECOND} for end, long in waits]
    meta = {"clock": clock(UNIX, start * SECOND)}
    b = trace_of(tmp_path, "b", rows, host, UNIX, meta=meta)
    merge([a, b], tmp_path / "m.slt")
    found = measure(Trace.open(tmp_path / "m.slt"), parse_rule(f"share(blocked{where}) < 1%"))
    assert found.exact
    assert float(found.low) == pytest.approx(share)


def test_what_is_of_machines_of_different_times_says_so(merged: Trace) -> None:
    said = (
        "machines were recorded at different times, web1 for 10.0 s, web2 for 90.0 s, of 100 s in "
        "all: what is per second, or a share of the time, is of all of it unless it is of "
        "a cgroup, process or CPU of one machine"
    )
    rules = [parse_rule(f"{f}(runq) < {v}") for f, v in (("rate", "9/s"), ("share", "99%"))]
    assert check(merged, rules).notes == (said,)
    assert check(merged, rules[:1], merged).notes == (said, f"baseline: {said}")
    assert check(merged, [parse_rule("max(runq) < 9s")]).notes == ()
    assert f"A and B: {said}" in diff(two_traces(merged, merged)).notes


def test_sides_that_are_machines_are_each_per_second_of_its_own(merged: Trace) -> None:
    a, b = (Selection(values={"cgroup": (f"web{i}:/",)}) for i in (1, 2))
    result = diff(two_traces(merged, merged, a, b))
    assert [side.to_json()["seconds"] for side in (result.a, result.b)] == [10.0, 90.0]
    waited = {c.name: c for c in result.classes["runq"]}
    assert (waited["waits"].a, waited["waits"].b) == (0.1, 0.1)
    assert (waited["total_ns"].a, waited["total_ns"].b) == (SECOND / 10, SECOND / 10)
    assert not any("different times" in note for note in result.notes)


def test_groups_of_a_machine_are_per_second_of_its_time(merged: Trace) -> None:
    result = diff(two_traces(merged, merged), ("cgroup", "cpu", "comm"))
    assert {g.by: {c.name: c.a for c in g.changes} for g in result.groups} == {
        "cgroup": {"web1:/": SECOND / 10, "web2:/": SECOND / 10},
        "cpu": {1: SECOND / 10, 3: SECOND / 10},
        "comm": {"web": SECOND / 10},
    }


def test_less_time_with_one_machine_is_not_faster(tmp_path: Path) -> None:
    """Both wait a tenth of the time in both traces; in the second they were recorded in turn."""
    row = {"wait_ns": SECOND // 100, "pid": 7, "tid": 7, **HOG}
    traces = []
    for name, begins in (("together", (100, 100)), ("apart", (100, 110))):
        parts = []
        for host, begin in zip(("web1", "web2"), begins, strict=True):
            rows = [{"end_ns": begin * SECOND + i * SECOND // 10, **row} for i in range(1, 100)]
            meta = {"clock": clock(UNIX, begin * SECOND, 10 * SECOND)}
            parts.append(trace_of(tmp_path, name + host, rows, host, UNIX, meta=meta))
        merge(parts, tmp_path / f"{name}.slt")
        traces.append(Trace.open(tmp_path / f"{name}.slt"))
    ((groups,)) = diff(two_traces(traces[0], traces[1]), ("cgroup",)).groups
    assert {c.name: (c.a, c.b, c.certain) for c in groups.changes} == {
        f"web{i}:/": (0.099 * SECOND, 0.099 * SECOND, False) for i in (1, 2)
    }


def test_findings_are_of_the_time_of_their_machine(merged: Trace) -> None:
    found = [f for f in diagnose(merged).findings if f.name == "contention"]
    assert {f.values["cgroup"]: round(f.lost, 6) for f in found} == {
        ("web1:/",): 0.1,
        ("web2:/",): 0.1,
    }
    assert any("1.00 s for a CPU within 10.0 s" in f.sentence for f in found)
