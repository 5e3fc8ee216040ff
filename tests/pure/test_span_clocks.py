"""Spans that were timed by another clock than the recording's, or by one that was set."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from sltrace.analysis.spans import explain_spans, read_spans
from sltrace.analysis.timeline import timeline
from sltrace.cli.main import cli
from sltrace.trace.reader import Trace
from tests.pure.test_spans import ID, UNIX, otlp, otlp_span, recorded
from tests.support.traces import make_trace


def test_spans_of_another_clock_say_so(tmp_path: Path) -> None:
    trace = recorded(tmp_path)
    file = tmp_path / "spans.json"
    for late, elsewhere in ((0, [False, False]), (400, [True, True]), (-5000, [True, True])):
        file.write_text(json.dumps(otlp([
            otlp_span("0b" * 8, "0a" * 8, 100 + late, 200 + late),
            otlp_span("0a" * 8, "", 50 + late, 350 + late),
        ])))  # fmt: skip
        found = explain_spans(trace, timeline(trace, ID), read_spans(file))
        assert [s.elsewhere for s in found] == elsewhere, late
        arguments = ["explain", str(trace.path), "--trace-id", ID, "--spans", str(file)]
        said = CliRunner().invoke(cli, arguments).output
        assert ("! its waits were at another time" in said) == any(elsewhere)


def test_a_clock_that_was_set_moves_no_spans_before_that(tmp_path: Path) -> None:
    """Over 10 s of recording the wall clock went on by an hour and 10 s; spans after that move."""
    second = 10**9
    clock = {"start_ns": 0, "end_ns": 10 * second, "start_unix_ns": UNIX}
    clock["end_unix_ns"] = UNIX + 3610 * second
    row = {"trace_id": ID, "span_id": "0a" * 8, "wait_ns": second, "end_ns": 3 * second}
    trace = Trace.open(make_trace(tmp_path, [row], meta={"clock": clock}))
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(otlp([otlp_span("0a" * 8, "", 2 * second, 4 * second)])))
    (found,) = explain_spans(trace, timeline(trace, ID), read_spans(file))
    assert (found.start_ns, found.end_ns, found.causes["runq"]) == (2 * second, 4 * second, second)
    assert not found.elsewhere
    arguments = ["explain", str(trace.path), "--trace-id", ID, "--spans", str(file)]
    said = "spans of the time after that are placed 3,600 s too late"
    assert said in CliRunner().invoke(cli, arguments).output
    assert said in json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)["notes"][0]
    assert "was set" not in CliRunner().invoke(cli, arguments[:-2]).output


def test_a_clock_that_was_set_and_set_back_is_told(tmp_path: Path) -> None:
    second = 10**9
    ends = {"start_unix_ns": UNIX, "end_unix_ns": UNIX + 10 * second}
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(otlp([otlp_span("0a" * 8, "", 2 * second, 4 * second)])))
    for furthest, said in (
        (-480 * second, "up to 480 s too early"),
        (10_000_001, "up to"),
        # The two clocks are not read at once.
        (-10_000_000, ""),
        ("x", ""),
    ):
        clock = {"start_ns": 0, "end_ns": 10 * second, "furthest_ns": furthest, **ends}
        row = {"trace_id": ID, "wait_ns": second, "end_ns": 3 * second}
        path = str(make_trace(tmp_path, [row], meta={"clock": clock}))
        done = CliRunner().invoke(cli, ["explain", path, "--trace-id", ID, "--spans", str(file)])
        assert ("was set during the recording, and set back" in done.output) == bool(said)
        assert said in done.output
