"""What the time of spans of other tracing systems went to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sltrace.analysis.spans import explain_spans, read_spans
from sltrace.analysis.timeline import timeline
from sltrace.cli.main import cli
from sltrace.trace.reader import Trace
from tests.support.traces import META, make_trace

ID = "ab" * 16


UNIX = META["clock"]["start_unix_ns"]


ROWS: list[dict[str, Any]] = [
    {"end_ns": 110, "wait_ns": 10, "span_id": "0a" * 8},
    {"end_ns": 160, "wait_ns": 40, "span_id": "0b" * 8, "kind": "throttled"},
    {"end_ns": 190, "wait_ns": 20, "span_id": None, "kind": "blocked"},
    {"end_ns": 290, "wait_ns": 20, "span_id": None, "kind": "gil"},
    {"end_ns": 330, "wait_ns": 50, "span_id": "0a" * 8},
    {"end_ns": 150, "wait_ns": 9, "span_id": "0b" * 8, "trace_id": "cd" * 16},
]


def recorded(folder: Path) -> Trace:
    clock = {"start_ns": 0, "end_ns": 1000, "start_unix_ns": UNIX, "end_unix_ns": UNIX + 1000}
    waits = [{"trace_id": ID, **row} for row in ROWS]
    return Trace.open(make_trace(folder, waits, meta={"clock": clock}))


def otlp_span(span_id: str, parent: str, start: int, end: int, **more: Any) -> dict[str, Any]:
    return {
        "traceId": ID.upper(),
        "spanId": span_id,
        "parentSpanId": parent,
        "name": f"op {span_id[:2]}",
        "startTimeUnixNano": str(UNIX + start),
        "endTimeUnixNano": UNIX + end,
        **more,
    }


SPANS = [
    otlp_span("0b" * 8, "0a" * 8, 100, 200),
    otlp_span("0a" * 8, "", 50, 300),
    otlp_span("0c" * 8, "0a" * 8, 250, 300),
    otlp_span("0b" * 8, "", 0, 999, traceId="cd" * 16),
]


def otlp(spans: list[dict[str, Any]]) -> dict[str, Any]:
    attributes = [{"key": "service.name", "value": {"stringValue": "shop"}}]
    return {
        "resourceSpans": [
            {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": spans}]}
        ]
    }


def test_spans_get_their_waits(tmp_path: Path) -> None:
    trace = recorded(tmp_path)
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(otlp(SPANS)))
    spans = read_spans(file)
    assert len(spans) == 4
    found = explain_spans(trace, timeline(trace, ID), spans)
    assert [(s.span.name, s.depth, s.waits) for s in found] == [
        ("op 0a", 0, 5),
        ("op 0b", 1, 2),
        ("op 0c", 1, 1),
    ]
    whole, first, last = found
    assert {c: ns for c, ns in whole.causes.items() if ns} == {
        # The last one ended after the span, and the GIL was waited for within it.
        "runq": 10 + 10,
        "quota": 40,
        "blocked": 20,
        "gil": 20,
    }
    assert whole.running_ns == 250 - 100
    assert {c: ns for c, ns in first.causes.items() if ns} == {"quota": 40, "blocked": 20}
    assert first.running_ns == 40
    assert {c: ns for c, ns in last.causes.items() if ns} == {"gil": 20}
    assert {s.span.service for s in found} == {"shop"}
    assert not any(s.cut for s in found)


def test_spans_without_an_id_or_in_a_circle_end(tmp_path: Path) -> None:
    trace = recorded(tmp_path)
    file = tmp_path / "spans.json"
    circle = [
        otlp_span("0a" * 8, "0b" * 8, 50, 300),
        otlp_span("0b" * 8, "0a" * 8, 100, 200),
        otlp_span("0c" * 8, "0a" * 8, 250, 300),
        otlp_span("0d" * 8, "0d" * 8, 260, 270),
    ]
    file.write_text(json.dumps(otlp([otlp_span("", "", 40, 320), *circle])))
    found = explain_spans(trace, timeline(trace, ID), read_spans(file))
    assert [(s.span.name, s.depth) for s in found] == [
        ("op 0a", 0),
        ("op 0b", 0),
        ("op 0c", 0),
        ("op 0d", 0),
    ]
    file.write_text(json.dumps(otlp([otlp_span("", "", 40, 320)])))
    assert explain_spans(trace, timeline(trace, ID), read_spans(file)) == []
    document = CliRunner().invoke(
        cli, ["explain", str(trace.path), "--trace-id", ID, "--spans", str(file), "--json"]
    )
    said = json.loads(document.output)
    assert (said["spans_beyond"], said["spans_without_id"]) == (0, 1)


def test_a_span_beyond_the_recording_says_so(tmp_path: Path) -> None:
    trace = recorded(tmp_path)
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(otlp([otlp_span("0a" * 8, "", -500, 2000)])))
    (found,) = explain_spans(trace, timeline(trace, ID), read_spans(file))
    assert found.cut
    assert found.running_ns + sum(found.causes.values()) == 1000


def test_a_span_in_a_gap_between_recordings_says_so(tmp_path: Path) -> None:
    """A wait that is partly of the gap has that part in no column, and takes none of others'."""
    trace = recorded(tmp_path)
    of = {"machine": 0, "host": "a"}
    trace.meta["merged"] = [
        of | {"start_ns": 0, "end_ns": 315},
        of | {"start_ns": 700, "end_ns": 1000},
    ]
    file = tmp_path / "spans.json"
    spans = [
        otlp_span("0a" * 8, "", 50, 800),
        otlp_span("0b" * 8, "", 310, 500),
        otlp_span("0c" * 8, "", 320, 500),
    ]
    file.write_text(json.dumps(otlp(spans)))
    found = explain_spans(trace, timeline(trace, ID), read_spans(file))
    assert [s.cut for s in found] == [True, True, True]
    assert [s.running_ns + sum(s.causes.values()) for s in found] == [265 + 100, 5, 0]
    assert {c: ns for c, ns in found[0].causes.items() if ns} == {
        # The last one began at 280 and went on until 330.
        "runq": 10 + 25,
        "blocked": 20,
        "gil": 20,
    }


def test_of_spans_of_the_same_time_a_wait_is_of_the_one_below(tmp_path: Path) -> None:
    trace = recorded(tmp_path)
    file = tmp_path / "spans.json"
    below = [otlp_span("0c" * 8, "0d" * 8, 0, 400), otlp_span("0e" * 8, "0c" * 8, 0, 400)]
    file.write_text(json.dumps(otlp([*below[::-1], otlp_span("0d" * 8, "", 0, 400)])))
    found = explain_spans(trace, timeline(trace, ID), read_spans(file))
    assert [(s.span.name, s.waits) for s in found] == [("op 0d", 5), ("op 0c", 5), ("op 0e", 5)]


def test_waits_that_were_not_seen_whole_are_said_of_their_spans(tmp_path: Path) -> None:
    """Also where a span began before the first wait that was seen, or ended after the last."""
    row = {"tid": 100, "cause": "hole", "low_ns": 5, "high_ns": 30}
    missed = [{**row, "end_ns": 90}, {**row, "end_ns": 700}, {**row, "end_ns": 990}]
    waits = [{"trace_id": ID, "end_ns": 130, "wait_ns": 30, "span_id": "0b" * 8}]
    clock = {"start_ns": 0, "end_ns": 1000, "start_unix_ns": UNIX, "end_unix_ns": UNIX + 1000}
    trace = Trace.open(make_trace(tmp_path, waits, meta={"clock": clock}, missed=missed))
    file = tmp_path / "spans.json"
    spans = [
        otlp_span("0a" * 8, "", 50, 800),
        otlp_span("0b" * 8, "0a" * 8, 100, 200),
        otlp_span("0c" * 8, "0a" * 8, 690, 800),
    ]
    file.write_text(json.dumps(otlp(spans)))
    seen = timeline(trace, ID)
    found = explain_spans(trace, seen, read_spans(file))
    assert [(s.span.name, s.unseen) for s in found] == [("op 0a", 2), ("op 0b", 0), ("op 0c", 1)]
    arguments = ["explain", str(trace.path), "--trace-id", ID]
    assert "none of these waits was lost" in CliRunner().invoke(cli, arguments).output
    said = CliRunner().invoke(cli, [*arguments, "--spans", str(file)]).output
    assert "losses: 2 waits not seen whole, 10 ns to 60 ns together" in said
    assert [mark for mark in ("op 0a ?", "op 0b ?", "op 0c ?") if mark in said] == [
        "op 0a ?",
        "op 0c ?",
    ]
    assert "RUNNING may have their time" in said


def test_spans_beyond_the_most_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sltrace.analysis.spans.MAX_SPANS", 2)
    trace = recorded(tmp_path)
    file = tmp_path / "spans.json"
    # What is exported twice is one.
    for spans, beyond in ((SPANS, 1), ([*SPANS[:2], SPANS[0]], 0)):
        file.write_text(json.dumps(otlp(spans)))
        arguments = ["explain", str(trace.path), "--trace-id", ID, "--spans", str(file)]
        assert ("shortest 1 span" in CliRunner().invoke(cli, arguments).output) == bool(beyond)
        as_json = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
        assert (len(as_json["spans"]), as_json["spans_beyond"]) == (2, beyond)


def test_spans_that_are_each_others_parents(tmp_path: Path) -> None:
    trace = recorded(tmp_path)
    loop = [
        otlp_span("0a" * 8, "0b" * 8, 0, 300),
        otlp_span("0b" * 8, "0a" * 8, 0, 200),
        otlp_span("0c" * 8, "0c" * 8, 0, 100),
        otlp_span("0d" * 8, "0a" * 8, 0, 100),
    ]
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(otlp(loop)))
    found = explain_spans(trace, timeline(trace, ID), read_spans(file))
    assert sorted(s.span.name for s in found) == ["op 0a", "op 0b", "op 0c", "op 0d"]


def test_a_span_that_ends_before_it_begins_has_no_time(tmp_path: Path) -> None:
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(otlp([otlp_span("0a" * 8, "", 300, 50)])))
    trace = recorded(tmp_path)
    (found,) = explain_spans(trace, timeline(trace, ID), read_spans(file))
    assert (found.end_ns - found.start_ns, found.running_ns, sum(found.causes.values())) == (
        0,
        0,
        0,
    )
