"""What every view of a Go process says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from heatmaps.facts import facts
from sltrace.analysis.bounds import measure
from sltrace.analysis.cube import build_cube
from sltrace.analysis.golang.health import windows
from sltrace.analysis.rules import parse_rule
from sltrace.cli.main import cli
from sltrace.errors import UsageError
from sltrace.trace.notes import sampling
from sltrace.trace.reader import Trace
from tests.support.gotraces import TARGET, made, waited
from tests.support.traces import SECOND, make_trace


def test_commands_say_what_to_record(tmp_path: Path) -> None:
    trace = make_trace(tmp_path, [{}])
    for command in ("go", "chain"):
        done = CliRunner().invoke(cli, [command, str(trace)])
        assert isinstance(done.exception, UsageError)
        assert "--pid PID" in str(done.exception)
    healthy = made(tmp_path)
    done = CliRunner().invoke(cli, ["go", str(healthy.path)])
    assert "nothing was read, so what is wrong is not known" in done.output
    document = json.loads(CliRunner().invoke(cli, ["go", str(healthy.path), "--json"]).output)
    assert document["findings"] == []


def test_every_view_says_that_probes_were_on_in_part(tmp_path: Path) -> None:
    """And no figure of what they tell is taken for all there was; those of the kernel are."""
    process = {"pid": 100, "level": 1, "looked": 0.27}
    source = {"sources": {"go": {"budget": 0.03, "processes": [process], "counters": {}}}}
    edges = [
        {"ns": t * SECOND, "pid": 100, "name": "probes_on", "value": value}
        for t, value in ((1, 1.0), (3, 0.0), (6, 1.0), (7, 0.0), (9, 1.0))
    ]
    rows = [{"kind": "stw", "wait_ns": 5}, waited("goroutine", 9), {"kind": "runq_wakeup"}]
    path = str(make_trace(tmp_path, rows, targets=[TARGET], meta=source, gauges=edges))
    for command in (["stat"], ["go"], ["chain"], ["stat", "--json"]):
        done = CliRunner().invoke(cli, [command[0], path, *command[1:]])
        said = "level 1 looked at Go process 100 27.0% of the time, to stay within 3% of its CPU"
        assert said in done.output, command
    trace = Trace.open(path)
    assert any("looked at Go process 100" in n for n in facts(trace, build_cube(trace))["notes"])
    for what, all_there in (("stw", False), ("goroutine", False), ("runq", True)):
        assert measure(trace, parse_rule(f"count({what}) < 9")).exact == all_there, what
    (window,) = windows(trace, 10 * SECOND)
    assert window.looked == pytest.approx(4 / 9)


def test_every_view_says_that_goroutines_are_sampled(tmp_path: Path) -> None:
    source = {"sources": {"go": {"sampled": 8, "processes": [], "counters": {}}}}
    path = str(make_trace(tmp_path, [waited("goroutine", 5)], targets=[TARGET], meta=source))
    for command in (["stat"], ["go"], ["chain"], ["stat", "--json"]):
        done = CliRunner().invoke(cli, [command[0], path, *command[1:]])
        assert "1 in 8" in done.output, command
    trace = Trace.open(path)
    assert any("1 in 8" in note for note in facts(trace, build_cube(trace))["notes"])


def test_what_the_probes_lost_is_said(tmp_path: Path) -> None:
    """By each counter that means a missing wait; others do not, and what is no count."""
    counters = {"go_ring_full": 3, "go_unreadable": 4, "go_scratch_full": 5, "go_zeros": 9}
    lost = made(tmp_path, meta={"sources": {"go": {"counters": counters}}})
    assert [note.partition(",")[0].partition(" are")[0] for note in lost.sampling] == [
        "3 waits of goroutines",
        "up to 9 waits of goroutines",
    ]
    strange = {"go_ring_full": -1, "go_unreadable": "x", "go_scratch_full": 1 << 70}
    for of_it in (strange, [], {}):
        meta = {"sources": {"go": {"counters": of_it}}}
        assert not made(tmp_path, meta=meta).sampling


def test_probes_that_are_passed_by_are_told() -> None:
    """By what the runtime noted itself while they were on, and by what other probes saw."""

    def notes(counters: dict[str, int], **process: object) -> list[str]:
        go = {"processes": [{"pid": 100, "nth": 1, **process}], "counters": counters}
        return sampling({"sources": {"go": go}}, [])

    (note,) = notes({}, level=3, noted=12_345, told=20)
    assert note.startswith("the probes in Go process 100 told 20 waits where its runtime noted 12,")
    assert not notes({}, level=1, noted=12_345, told=2000)
    assert not notes({}, level=1, noted=900, told=0)
    assert not notes({}, level=1, noted=12_345, told=20, looked=0.05)
    assert not notes({}, level=0, noted=12_345, told=0)
    assert not notes({}, level=1, noted=1 << 70, told="none")
    known = {"noted": 5000, "told": 5000}
    (note,) = notes({"go_records": 5000, "go_tracked_hits": 3}, level=2, **known)
    assert "how long goroutines were parked is missing" in note
    assert not notes({"go_records": 5000, "go_tracked_hits": 7000}, level=2, **known)
    assert not notes({"go_records": 5000, "go_tracked_hits": 0}, level=1, **known)
