"""Spans that the SDK itself exported, and what their time went to by the process's own clocks."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from sltrace.analysis.spans import explain_spans, read_spans
from sltrace.analysis.timeline import timeline
from tests.support.pythons import service
from tests.support.recorder import Record, sltrace
from tests.support.schedstat import stolen_in

pytestmark = pytest.mark.bpf


def exported(file: Path) -> dict[str, dict[str, Any]]:
    """By trace id its spans, as name to span, from the file as the exporter wrote it."""
    traces: dict[str, dict[str, Any]] = {}
    for line in file.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    traces.setdefault(span["traceId"], {})[span["name"]] = span
    return traces


def used(span: dict[str, Any]) -> int:
    """CPU time, ns, that the span's thread counted itself."""
    (value,) = (a["value"]["intValue"] for a in span["attributes"] if a["key"] == "cpu_ns")
    return int(value)


def test_the_time_of_spans_of_the_sdk_is_told_apart(record: Record, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    with service("this", "exported", file, 60) as process:
        assert process.stdout
        with record("--pid", process.pid) as recording:
            # Ids are there from a second after the first span on.
            low, late = time.time_ns() + 1_200_000_000, 0
            while late < 8:
                late += int(process.stdout.readline()) > low
        process.terminate()
        process.wait(20)
    traces = exported(file)
    clock = recording.trace.meta["clock"]
    whole = [
        trace_id
        for trace_id, spans in traces.items()
        if len(spans) == 4
        and int(spans["request"]["startTimeUnixNano"]) > low
        and int(spans["request"]["endTimeUnixNano"]) < clock["end_unix_ns"]
    ]
    assert len(whole) >= 8
    trace, spans = recording.trace, read_spans(file)
    # Runtimes' probes go 0.2 s after the scheduler's; what they tell then is not of the recording.
    (ends,) = trace.sql("SELECT max(end_ns) AS last FROM waits WHERE kind = 'gil'").to_pylist()
    assert clock["start_ns"] < ends["last"] <= clock["end_ns"]
    times = trace.meta["cpu_times"].values()
    # Is time of whoever ran, but by no thread's own clock. /proc/stat has whole ticks of 10 ms.
    stolen = stolen_in(trace) + 10_000_000 * len(times)
    beside = defaultdict[str, list[float]](list)
    slept: list[int] = []
    ran = waited = 0
    for trace_id in whole:
        explained = explain_spans(trace, timeline(trace, trace_id), spans)
        found = {s.span.name: s for s in explained}
        assert found["request"].span.service == "shop"
        assert [s.depth for s in found.values()] == [0, 1, 1, 1]
        for name, span in found.items():
            length = span.end_ns - span.start_ns
            assert length == pytest.approx(
                int(traces[trace_id][name]["endTimeUnixNano"])
                - int(traces[trace_id][name]["startTimeUnixNano"]),
                abs=1000,
            )
            assert span.running_ns + sum(span.causes.values()) == length
            if not span.unseen:
                more = span.running_ns - used(traces[trace_id][name])
                some = 0.1 * used(traces[trace_id][name]) + 3_000_000
                assert -some <= more <= some + stolen
                beside[name].append(more / some)
        if not found["sleep"].unseen:
            slept.append(found["sleep"].causes["blocked"])
        ran += found["contend"].running_ns
        waited += found["contend"].causes["gil"]
    print({name: [round(m, 2) for m in more] for name, more in beside.items()}, stolen)
    assert len(beside) == 4
    for more in beside.values():
        assert len(more) >= 3
        assert -1 < median(more) < 1
    # The timer runs from a little before the thread sleeps.
    assert median(slept) > 59_000_000
    # Two threads that only compute have the GIL in turns.
    assert waited > 0.3 * ran
    done = sltrace("explain", recording.path, "--trace-id", whole[-1], "--spans", file)
    assert done.code == 0, done.err
    assert all(name in done.out for name in ("shop: request", "  shop: sleep", "GIL", "RUNNING"))
