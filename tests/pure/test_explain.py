"""explain: causes against a clock that ticks every nanosecond, and what the command says."""

from __future__ import annotations

import json
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.slowtraces import slow_traces
from sltrace.analysis.timeline import CAUSES, Wait, by_cause, slowest, time_by_cause, timeline
from sltrace.analysis.timelost import in_two_kinds
from sltrace.cli.explain import command
from sltrace.cli.strips import strip
from sltrace.errors import UsageError
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import random_waits
from tests.pure.test_spans import ID, otlp, otlp_span, recorded
from tests.support.traces import SECOND, make_trace

FIELDS: dict[str, Any] = dict.fromkeys(Wait.__dataclass_fields__)
KINDS = [k for kinds in CAUSES.values() for k in kinds]


def wait(start: int, end: int, kind: str = "runq_wakeup", **more: Any) -> Wait:
    base = FIELDS | {"pid": 1, "tid": 1, "comm": "web", "start_ns": start, "end_ns": end}
    return Wait(**(base | {"kind": kind} | more))


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 30), st.sampled_from([*KINDS, "loop"])),
        max_size=12,
    ),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), max_size=4),
)
@settings(max_examples=150)
def test_every_moment_goes_to_one_cause(
    raw: list[tuple[int, int, str]], stretches: list[tuple[int, int]]
) -> None:
    waits = [wait(s, s + n, kind) for s, n, kind in raw]
    expected = dict.fromkeys(CAUSES, 0)
    ends = list(accumulate(chain.from_iterable(stretches)))
    times = list(zip(ends[::2], ends[1::2], strict=True))
    for now in chain.from_iterable(range(*stretch) for stretch in times):
        under_way = {w.kind for w in waits if w.start_ns <= now < w.end_ns}
        for cause, kinds in CAUSES.items():
            if under_way & set(kinds):
                expected[cause] += 1
                break
    assert time_by_cause(by_cause(waits), times) == expected


def test_the_slowest_traces_are_pandas(tmp_path: Path) -> None:
    frame = random_waits(41, 4000)
    ids = np.array([f"{i:032x}" for i in range(1, 40)] + [None], dtype=object)
    frame["trace_id"] = ids[np.random.default_rng(2).integers(0, 40, len(frame))]
    trace = Trace.open(make_trace(tmp_path, pa.Table.from_pandas(frame, preserve_index=False)))
    found = slowest(trace, limit=7)
    known = frame[frame["trace_id"].notna()]
    lost = known[known["kind"] != "blocked"].groupby("trace_id")["wait_ns"].sum()
    order = lost.sort_values(ascending=False)
    assert [t.trace_id for t in found.traces] == list(order.index[:7])
    assert (found.count, found.untraced) == (39, int(frame["trace_id"].isna().sum()))
    for traced in found.traces:
        of_it = known[known["trace_id"] == traced.trace_id]
        assert traced.lost_ns == lost[traced.trace_id]
        assert traced.blocked_ns == of_it[of_it["kind"] == "blocked"]["wait_ns"].sum()
        assert (traced.waits, traced.threads) == (len(of_it), of_it["tid"].nunique())
        assert traced.end_ns == of_it["end_ns"].max()
        assert traced.start_ns == (of_it["end_ns"] - of_it["wait_ns"]).min()
    one = timeline(trace, order.index[0])
    assert len(one.waits) == found.traces[0].waits
    assert sum(w.end_ns - w.start_ns for w in one.waits) == (
        found.traces[0].lost_ns + found.traces[0].blocked_ns
    )
    assert pd.Series([w.start_ns for w in one.waits]).is_monotonic_increasing


def test_what_must_be_said_beside_the_slowest_is_in_their_json(tmp_path: Path) -> None:
    made = make_trace(tmp_path, [{"trace_id": ID}], meta={"skipped_probe_runs": 3})
    trace = Trace.open(made)
    assert trace.notes
    assert slowest(trace).to_json()["notes"] == trace.notes


def test_what_of_a_wait_for_the_gil_was_one_for_a_cpu_is_lost_once(tmp_path: Path) -> None:
    rows = [
        {"trace_id": ID, "end_ns": 900, "wait_ns": 500, "kind": "gil", "runq_ns": 120},
        {"trace_id": ID, "end_ns": 900, "wait_ns": 120, "kind": "runq_wakeup"},
        {"trace_id": ID, "end_ns": 780, "wait_ns": 380, "kind": "blocked"},
    ]
    trace = Trace.open(make_trace(tmp_path, rows))
    (found,) = slowest(trace).traces
    assert (found.lost_ns, found.blocked_ns) == (500, 380)
    assert [t.wait_ns for t in slow_traces(trace).traces] == [500]
    assert "120 ns are run-queue latency or a wait for the GIL as well" in in_two_kinds(trace)
    assert not in_two_kinds(Trace.open(make_trace(tmp_path, rows[1:])))


@pytest.mark.parametrize(("minimum_ns", "lost_ns"), [(120, 500), (121, 620)])
def test_a_wait_for_a_cpu_that_has_no_row_is_lost_while_waiting_for_the_gil(
    tmp_path: Path, minimum_ns: int, lost_ns: int
) -> None:
    rows = [
        {"trace_id": ID, "end_ns": 900, "wait_ns": 500, "kind": "gil", "runq_ns": 120},
        {"trace_id": ID, "end_ns": 999, "wait_ns": 120, "kind": "stw"},
    ]
    trace = Trace.open(make_trace(tmp_path, rows, meta={"min_latency_ns": minimum_ns}))
    (found,), (slow,) = slowest(trace).traces, slow_traces(trace).traces
    assert found.lost_ns == slow.wait_ns == lost_ns
    assert bool(in_two_kinds(trace)) == (minimum_ns <= 120)


def test_what_of_a_collection_was_a_wait_of_another_kind_is_lost_once(tmp_path: Path) -> None:
    """For a CPU, and for the GIL where it called Python."""
    collection = {"kind": "stw", "reason": "gc", "runq_ns": 120, "gil_ns": 80}
    rows = [
        collection | {"trace_id": ID, "end_ns": 900, "wait_ns": 500},
        {"trace_id": ID, "end_ns": 900, "wait_ns": 100, "kind": "runq_preempt"},
        {"trace_id": ID, "end_ns": 700, "wait_ns": 100, "kind": "gil", "runq_ns": 20},
        {"trace_id": ID, "end_ns": 700, "wait_ns": 20, "kind": "runq_wakeup"},
    ]
    trace = Trace.open(make_trace(tmp_path, rows))
    (found,) = slowest(trace).traces
    assert found.lost_ns == 500
    assert in_two_kinds(trace).startswith("of waits for the GIL and of collections 220 ns are")
    # Those of other kinds may have begun before it: no more than all of it is of theirs, too.
    rows[0]["wait_ns"] = 150
    trace = Trace.open(make_trace(tmp_path, rows))
    assert slowest(trace).traces[0].lost_ns == 100 + 100 - 20 + 20
    assert in_two_kinds(trace).startswith("of waits for the GIL and of collections 170 ns are")


def test_a_trace_that_began_before_the_recording_is_placed_before_it(tmp_path: Path) -> None:
    wait = {"trace_id": ID, "end_ns": 900, "wait_ns": 2_000_000, "kind": "stw"}
    rows = [wait | {"reason": "other"}]
    path = str(make_trace(tmp_path, rows))
    assert "  -0.002 s" in CliRunner().invoke(command, [path]).output
    shown = CliRunner().invoke(command, [path, "--trace-id", ID]).output
    assert " from -0.001999 s" in shown
    # Which is not always for a collection.
    assert "stopped world: other" in shown
    assert "GC" not in shown


def test_a_strip_has_a_letter_for_each_part() -> None:
    waits = [
        wait(0, 50, "blocked"),
        wait(20, 21, "runq_wakeup"),
        wait(60, 70, "throttled"),
        wait(64, 70, "gil"),
        wait(90, 90, "stw"),
    ]
    assert strip(waits, 0, 100, 10) == "bbrbb.q..S"
    assert strip(waits, 0, 0, 3) == "..S" or len(strip(waits, 0, 0, 3)) == 3
    assert strip([wait(-50, 500, "loop")], 0, 100, 5) == "....."
    assert strip([wait(-50, 500)], 0, 100, 5) == "rrrrr"


def shown(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == 0, result.exception
    return result.output


def test_the_command_lists_and_explains(tmp_path: Path) -> None:
    trace = recorded(tmp_path)
    file = tmp_path / "spans.json"
    hostile = [otlp_span("0a" * 8, "", 50, 300, name="\x1b[2Jop‮")]
    file.write_text(json.dumps(otlp(hostile)))
    out = shown(trace.path)
    assert out.splitlines()[1].split() == [
        *(ID, "120", "ns", "20", "ns", "5", "1", "+0.000", "s", "230", "ns")
    ]
    out = shown(trace.path, "--trace-id", ID.upper(), "--spans", file)
    assert f"trace {ID}: 230 ns from +0.000000 s (2023-11-14 22:13:20.000000 UTC)" in out
    assert "\\x1b[2Jop\\u202e" in out
    assert "\x1b" not in out
    assert out.rstrip().endswith("losses: none of these waits was lost")
    few = shown(trace.path, "--trace-id", ID, "--top", 2)
    assert "and 3 shorter ones, 50 ns together" in few
    document = json.loads(shown(trace.path, "--trace-id", ID, "--spans", file, "--json"))
    assert len(document["waits"]) == 5
    assert document["spans"][0]["running_ns"] == 150
    assert json.loads(shown(trace.path, "--json"))["count"] == 2


def test_every_kind_says_because_of_whom(tmp_path: Path) -> None:
    culprit = {"culprit_tid": 9, "culprit_pid": 9, "culprit_comm": "hog", "culprit_ns": 900}
    rows: list[dict[str, Any]] = [
        {"kind": "runq_wakeup", **culprit},
        {"kind": "runq_preempt"},
        {"kind": "runq_wakeup", "culprit_tid": 0, "culprit_comm": "idle"},
        {"kind": "throttled", "culprit_cgroup": "/q"},
        {"kind": "blocked", "waker_context": "softirq", "reason": "disk"},
        {"kind": "blocked", "waker_context": "task", "waker_tid": 7, "waker_comm": "db"},
        {"kind": "goroutine", "goid": 5, "waker_goid": 6},
    ]
    waits = [
        {"trace_id": ID, "end_ns": SECOND + i * 1000, "wait_ns": 900, **row}
        for i, row in enumerate(rows)
    ]
    out = shown(make_trace(tmp_path, waits), "--trace-id", ID)
    for words in (
        "run queue             hog 9 ran for 900 ns",
        "run queue, preempted  not known",
        "idle CPU (wakeup latency)",
        "quota of /q",
        "blocked: disk         ended by an interrupt (softirq)",
        "ended by db 7",
        "goroutine 5 of pid 100",
        "ended by goroutine 6",
    ):
        assert words in out, out


def test_waits_that_were_not_seen_whole_are_said_once(tmp_path: Path) -> None:
    """Of the time of the trace, and of its threads or of one of which nothing else is known."""
    row = {"tid": 100, "cause": "hole", "low_ns": 5, "high_ns": 40}
    missed = [
        {**row, "end_ns": 130},
        {**row, "end_ns": 100},
        {**row, "end_ns": 171},
        {**row, "end_ns": 130, "tid": 7},
        {**row, "end_ns": 130, "tid": 8},
    ]
    waits = [
        {"trace_id": ID, "end_ns": 130, "wait_ns": 30},
        {"tid": 8, "end_ns": 130, "wait_ns": 30},
    ]
    path = make_trace(tmp_path, waits, missed=missed)
    said = "2 waits not seen whole, 10 ns to 80 ns together (at most 66.67% of these"
    assert said in timeline(Trace.open(path), ID).losses.sentence
    out = shown(path, "--trace-id", ID)
    assert said in out
    assert out.count("not seen whole") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace-id", "zz"], "is not a trace id"),
        (["--trace-id", "1" * 32], "no wait of trace 1111"),
        (["--spans", "x.json"], "--spans needs --trace-id"),
        (["--trace-id", ID, "--spans", "/no/x.json"], "cannot read /no/x.json"),
    ],
)
def test_wrong_use_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    path = str(recorded(tmp_path).path)
    result = CliRunner().invoke(command, [path, *arguments])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_no_ids_and_no_waits_are_said(tmp_path: Path) -> None:
    assert "no trace ids among 1 wait:" in shown(make_trace(tmp_path, [{}]))
    path = make_trace(tmp_path, meta={"histogram_only": True})
    result = CliRunner().invoke(command, [str(path)])
    assert "histograms only" in str(result.exception)
