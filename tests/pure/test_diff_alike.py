"""diff: what of two sides can be compared, where they were not recorded alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sltrace.analysis.diff import Change, diff
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import two_traces
from sltrace.errors import UsageError
from tests.pure.test_analysis_latency import random_waits
from tests.pure.test_diff import RUNQ, open_trace
from tests.support.traces import SECOND


def test_unlike_minimum_latencies_are_made_alike(tmp_path: Path) -> None:
    frame = random_waits(30, 2000)
    kept = frame[frame["wait_ns"] >= 50_000]
    sides = two_traces(
        open_trace(tmp_path / "a", frame),
        open_trace(tmp_path / "b", kept, min_latency_ns=50_000),
    )
    result = diff(sides, [])
    assert all(c.difference == 0 for cs in result.classes.values() for c in cs)
    assert result.notes == ("only waits of 50.0 us or more are compared",)
    with pytest.raises(UsageError, match="histograms only"):
        two_traces(sides[0].trace, open_trace(tmp_path / "c", kept[:0], histogram_only=True))


ALIKE = {"level_asked_for": 1, "sampled": 8, "budget": 0.03, "processes": [], "counters": {}}
IN_PART = {"processes": [{"pid": 100, "level": 1, "looked": 0.27}]}
OF_GO = ("goroutine", "goroutine_blocked", "stw")
OTHERS = ("blocked", "throttled")


@pytest.mark.parametrize(
    ("of_a", "of_b", "comparable"),
    [
        ({}, {}, True),
        ({}, IN_PART, False),
        (IN_PART, {}, False),
        (IN_PART, IN_PART, False),
        ({}, {"level_asked_for": 2}, False),
        ({}, {"level_asked_for": 3, "sampled": None}, False),
    ],
)
def test_what_was_looked_at_unlike_is_not_judged_by_counts(
    tmp_path: Path, of_a: dict[str, object], of_b: dict[str, object], comparable: bool
) -> None:
    """Side B has five times the waits, each of them longer: of Go's that is of the looking, too."""
    sides = []
    for name, own, count, ns in (("a", of_a, 100, 5000), ("b", of_b, 500, 9000)):
        waits = [
            {"kind": kind, "end_ns": 10 * SECOND * i // count, "wait_ns": ns + i}
            for kind in (*OF_GO, *OTHERS)
            for i in range(count)
        ]
        frame = pd.DataFrame(waits)
        sides.append(open_trace(tmp_path / name, frame, sources={"go": ALIKE | own}))
    result = diff(two_traces(sides[0], sides[1]), ["kind"])
    said = [note for note in result.notes if "not looked for in the same way" in note]
    assert len(said) == (not comparable)
    (groups,) = result.groups
    summed = {c.name: c for c in groups.changes}
    assert {*result.classes} == {*summed} == {*OF_GO, *OTHERS}
    for kind, changes in result.classes.items():
        certain = {str(c.name): c.certain for c in changes}
        assert certain["p50_ns"], kind
        assert certain["p90_ns"], kind
        judged = comparable or kind in OTHERS
        assert (certain["waits"], certain["total_ns"]) == (judged, judged), kind
        assert summed[kind].certain == judged, kind
        # The figures are there all the same.
        assert summed[kind].difference
    whole = [
        replace(s, selection=Selection(values={"kind": OF_GO}))
        for s in two_traces(sides[0], sides[1])
    ]
    (groups,) = diff((whole[0], whole[1]), ["comm"]).groups
    assert [c.certain for c in groups.changes] == [comparable]


FAILED = {"failed": {"after_ns": SECOND, "why": "OSError: gone", "where": "rows"}}


@pytest.mark.parametrize(
    ("of_a", "of_b", "unlike"),
    [
        ({}, {}, ()),
        ({"blocked": False}, {"blocked": True}, ("blocked",)),
        ({"blocked": False}, {}, ("blocked",)),
        ({"blocked": False}, {"blocked": False}, ()),
        ({}, {"sources": {"python": {}}}, ("gil", "loop", "stw")),
        ({"sources": {"made.slt: python": {}}}, {"sources": {"python": {}}}, ()),
        (
            {"sources": {"python": {"refused": "no such probe"}}},
            {"sources": {"python": {}}},
            ("gil", "loop", "stw"),
        ),
        ({"sources": {"python": {}}}, {"sources": {"python": FAILED}}, ("gil", "loop", "stw")),
        ({"sources": {"go": FAILED}}, {"sources": {"go": {}}}, OF_GO),
    ],
)
def test_what_one_side_did_not_look_for_is_no_change(
    tmp_path: Path, of_a: dict[str, object], of_b: dict[str, object], unlike: tuple[str, ...]
) -> None:
    """Side B alone has waits of every kind, all through its 10 s."""
    kinds = (*OF_GO, *OTHERS, "gil", "loop")
    a, b = (
        pd.DataFrame(
            {"kind": kind, "end_ns": 10 * SECOND * i // 500, "wait_ns": 5000 + i}
            for kind in of_side
            for i in range(500)
        )
        for of_side in (("runq_wakeup",), ("runq_wakeup", *kinds))
    )
    sides = open_trace(tmp_path / "a", a, **of_a), open_trace(tmp_path / "b", b, **of_b)
    result = diff(two_traces(*sides), ["kind"])
    (groups,) = result.groups
    for changes in ({c.name: c for c in groups.changes}, _totals(result.classes)):
        assert {kind for kind in kinds if not changes[kind].certain} == {*unlike}
        assert not changes["runq_wakeup" if "runq_wakeup" in changes else "runq"].certain
    said = [note for note in result.notes if "nothing is said of how" in note]
    assert len(said) == bool(unlike)
    only = [replace(s, selection=Selection(values={"kind": RUNQ})) for s in two_traces(*sides)]
    assert not [n for n in diff((only[0], only[1])).notes if "nothing is said of how" in n]


def _totals(classes: dict[str, tuple[Change, ...]]) -> dict[str, Change]:
    return {name: next(c for c in cs if c.name == "total_ns") for name, cs in classes.items()}


@pytest.mark.parametrize(
    ("of_a", "of_b", "alike"),
    [
        ({"cpus": [0]}, {}, False),
        ({"cpus": [0]}, {"cpus": [1]}, False),
        ({"cpus": [0]}, {"cpus": [0]}, True),
        ({"pids": [5]}, {"cgroups": ["/web"]}, False),
        # The same service after a restart.
        ({"pids": [5]}, {"pids": [6]}, True),
    ],
)
def test_of_unlike_parts_of_a_machine_nothing_is_certain(
    tmp_path: Path, of_a: dict[str, object], of_b: dict[str, object], alike: bool
) -> None:
    sides = two_traces(
        open_trace(tmp_path / "a", random_waits(30, 4000), filters=of_a),
        open_trace(tmp_path / "b", random_waits(31, 12_000), filters=of_b),
    )
    result = diff(sides)
    changes = {c.name: c for c in result.classes["runq"]}
    assert changes["waits"].certain == changes["total_ns"].certain == alike
    assert all(alike or c.low is None for g in result.groups for c in g.changes)
    assert any("not limited to the same" in note for note in result.notes) == (not alike)
