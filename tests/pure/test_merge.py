"""merge: nothing lost, nothing mixed up, everything at its time on the wall clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from heatmaps.facts import facts
from sltrace.analysis.check import check
from sltrace.analysis.cube import build_cube
from sltrace.analysis.diagnosis import diagnose
from sltrace.analysis.diff import diff
from sltrace.analysis.golang.health import windows
from sltrace.analysis.latency import stat
from sltrace.analysis.meta import recorded_ns, recorded_ns_with, recordings_with
from sltrace.analysis.python.report import python_report
from sltrace.analysis.rules import parse_rule
from sltrace.analysis.sides import two_traces
from sltrace.cli.merge import command
from sltrace.errors import OutputError, TraceError, UsageError
from sltrace.model import PID_SPACE
from sltrace.trace import merge as merging
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from sltrace.trace.schema import TABLES
from tests.pure.test_analysis_latency import random_waits
from tests.support.traces import SECOND, make_trace

UNIX = 1_700_000_000 * SECOND
AS_THEY_ARE = [
    "wait_ns",
    "kind",
    "comm",
    "migrated",
    "wake_ns",
    "policy",
    "prio",
    "nice",
    "state",
    "waker_comm",
    "waker_context",
    "culprit_comm",
    "culprit_ns",
    "culprit_others",
    "goid",
    "waker_goid",
    "task",
    "reason",
    "sampled",
    "trace_id",
    "span_id",
    "id_source",
    "flags",
    "cause",
    "low_ns",
    "high_ns",
    "bucket",
    "count",
    "sum_ns",
    "name",
    "class",
    "value",
    "space",
    "start",
    "end",
    "offset",
    "build_id",
    "module",
    "language",
    "file",
    "line",
    "ns_pid",
    "cmdline",
    "container_id",
    "runtime",
    "pod_uid",
    "unit",
    "quota_us",
    "period_us",
    "version",
    "exe",
    "level",
    "why",
    "source",
    "weight_ns",
    "runq_ns",
    "gil_ns",
    "item",
    "held_p",
    "queued",
    "app",
    "labels",
    "measure",
    "samples",
    "size",
    "profile",
]


def test_every_column_is_decided_about() -> None:
    """A new column must not be merged as it is by accident."""
    moved = {
        *merging.TIMES,
        *merging.PIDS,
        *merging.CPUS,
        *merging.NODES,
        *merging.CGROUP_IDS,
        *merging.CGROUP_PATHS,
        *merging.STACK_IDS,
        *merging.ADDRESSES,
    }
    every = {c.name for columns in TABLES.values() for c in columns}
    assert every == moved | set(AS_THEY_ARE)
    assert not moved & set(AS_THEY_ARE)


def clock(boot_unix_ns: int, start_ns: int = 100 * SECOND, length: int = 10 * SECOND) -> Any:
    """Of a machine that booted then."""
    start = boot_unix_ns + start_ns
    return {
        "start_ns": start_ns,
        "end_ns": start_ns + length,
        "start_unix_ns": start,
        "end_unix_ns": start + length,
    }


def trace_of(folder: Path, name: str, waits: Any, host: str, boot: int, **more: Any) -> Trace:
    (folder / name).mkdir()
    meta = {"host": host, "clock": clock(boot)} | more.pop("meta", {})
    return Trace.open(make_trace(folder / name, waits, meta=meta, **more))


def random_trace(folder: Path, name: str, seed: int, host: str, boot: int) -> tuple[Trace, Any]:
    frame = random_waits(seed, 1500)
    frame["end_ns"] += 100 * SECOND
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return trace_of(folder, name, table, host, boot), frame


def test_waits_of_two_machines_are_those_of_both(tmp_path: Path) -> None:
    a, of_a = random_trace(tmp_path, "a", 51, "one", UNIX)
    # Booted a day earlier, so that its monotonic clock says other numbers at the same time.
    b, of_b = random_trace(tmp_path, "b", 52, "two", UNIX - 86_400 * SECOND)
    parts = merge([a, b], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert [p.label for p in parts] == ["one", "two"]
    assert merged.meta["cpus"] == 4
    assert merged.notes == []
    both = pd.concat(
        [
            of_a.assign(cgroup="one:" + of_a["cgroup"]),
            of_b.assign(
                cgroup="two:" + of_b["cgroup"],
                pid=of_b["pid"] + PID_SPACE,
                tid=of_b["tid"] + PID_SPACE,
                cpu=of_b["cpu"] + 4,
                node=of_b["node"] + 2,
                end_ns=of_b["end_ns"] - 86_400 * SECOND,
            ),
        ]
    )
    columns = ["end_ns", "wait_ns", "kind", "comm", "pid", "tid", "cpu", "node", "cgroup", "flags"]
    rows = merged.table("waits", columns).to_pandas().astype({"kind": str, "comm": str})
    expected = both[columns].sort_values(columns).reset_index(drop=True)
    got = rows.sort_values(columns).reset_index(drop=True)[columns]
    pd.testing.assert_frame_equal(got, expected, check_dtype=False)
    for by in (["cgroup"], ["kind"], ["trace_id"], ["pid", "cpu"]):
        groups = {g.keys: (g.count, g.total_ns) for g in stat(merged, by).groups}
        frame = both if "kind" in by else both[both["kind"].str.startswith("runq")]
        want = frame.groupby(by, dropna=False)["wait_ns"].agg(["size", "sum"])
        assert sorted(groups.values()) == sorted(map(tuple, want.to_numpy().tolist()))


def test_the_same_moment_is_the_same_moment(tmp_path: Path) -> None:
    """Two machines see the end of one second of wall clock; one's clock is 50 ppm fast."""
    fast = clock(UNIX - 3600 * SECOND, 3700 * SECOND)
    fast["end_ns"] += 10 * SECOND * 50 // 1_000_000
    a = trace_of(tmp_path, "a", [{"end_ns": 105 * SECOND}], "one", UNIX)
    there = 3705 * SECOND + 5 * SECOND * 50 // 1_000_000
    b = trace_of(tmp_path, "b", [{"end_ns": there}], "two", 0, meta={"clock": fast})
    merge([a, b], tmp_path / "m.slt")
    ends = Trace.open(tmp_path / "m.slt").table("waits", ["end_ns"])["end_ns"].to_pylist()
    assert abs(ends[0] - ends[1]) <= 1
    merge([b, a], tmp_path / "n.slt")
    merged = Trace.open(tmp_path / "n.slt")
    ends = merged.table("waits", ["end_ns"])["end_ns"].to_pylist()
    assert there in ends
    assert abs(ends[0] - ends[1]) <= 1
    assert merged.meta["clock"]["start_unix_ns"] == UNIX + 100 * SECOND


def test_a_clock_that_was_set_is_not_believed_and_said(tmp_path: Path) -> None:
    jumped = clock(UNIX)
    jumped["end_unix_ns"] += 3600 * SECOND
    a = trace_of(tmp_path, "a", [{"end_ns": 105 * SECOND}], "one", UNIX - SECOND * 9)
    b = trace_of(tmp_path, "b", [{"end_ns": 105 * SECOND}], "two", 0, meta={"clock": jumped})
    merge([a, b], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    ends = sorted(merged.table("waits", ["end_ns"])["end_ns"].to_pylist())
    assert ends == [105 * SECOND, 114 * SECOND]
    assert any("its wall clock was set" in limit for limit in merged.meta["limits"])


def test_time_that_was_not_recorded_is_not_counted(tmp_path: Path) -> None:
    """Two recordings of 10 s an hour apart, in each of which one cgroup waited for 1 s."""
    hog = {"culprit_pid": 9, "culprit_tid": 9, "culprit_comm": "hog", "culprit_ns": SECOND // 2}
    row = {"wait_ns": SECOND, "tid": 1, **hog}
    a = trace_of(tmp_path, "a", [{"end_ns": 105 * SECOND, **row}], "one", UNIX)
    later = {"clock": clock(UNIX, 3700 * SECOND)}
    b = trace_of(tmp_path, "b", [{"end_ns": 3705 * SECOND, **row}], "one", 0, meta=later)
    merge([a, b], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert recorded_ns(merged) == 20 * SECOND
    assert recorded_ns(merged, 105 * SECOND, 3702 * SECOND) == 7 * SECOND
    assert recorded_ns(merged, 200 * SECOND, 300 * SECOND) == 0
    assert recorded_ns(a) == 10 * SECOND
    (found,) = diagnose(merged).findings
    assert (found.name, found.lost) == ("contention", 0.1)
    for figure, value in (("share", "10%"), ("rate", "0.1/s")):
        for operator, verdict in ((">=", "pass"), (">", "fail")):
            rule = parse_rule(f"{figure}(runq) {operator} {value}")
            assert check(merged, [rule]).verdict == verdict
    waited = {c.name: c for c in diff(two_traces(a, merged)).classes["runq"]}["total_ns"]
    assert (waited.a, waited.b) == (SECOND / 10, SECOND / 10)
    merged.meta["merged"] = [None, 7, {"start_ns": "x"}, {"start_ns": -1, "end_ns": 10**30}]
    assert recorded_ns(merged) == 0


def test_shares_of_a_process_are_of_the_recordings_it_is_in(tmp_path: Path) -> None:
    """Half of its 10 s in collections is that, however long was recorded elsewhere."""
    target = {"runtime": "python", "pid": 7, "level": 1, "version": "3.12", "from_ns": 100 * SECOND}
    collection = {"kind": "stw", "reason": "gc", "pid": 7, "tid": 7, "wait_ns": 5 * SECOND}
    rows = [collection | {"end_ns": 106 * SECOND}]
    a = trace_of(tmp_path, "a", rows, "one", UNIX, targets=[target])
    later = {"clock": clock(UNIX, 3700 * SECOND)}
    b = trace_of(tmp_path, "b", [{"end_ns": 3705 * SECOND, "tid": 1}], "one", 0, meta=later)
    c = trace_of(tmp_path, "c", rows, "two", UNIX, targets=[target])
    merge([a, b, c], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert python_report(merged).wall_ns == 20 * SECOND
    found = {f.pid: f.value for f in python_report(merged).findings}
    assert found == {7: 0.5, 7 + PID_SPACE: 0.5}
    assert recorded_ns_with(merged, 1) == 20 * SECOND


def test_shares_of_a_worker_are_of_its_life_in_each_recording(tmp_path: Path) -> None:
    """2 s of the first recording, 3 s of the next: a second in collections is a fifth."""
    begins = (100 * SECOND, 3700 * SECOND)
    parts = []
    for number, (start, lived) in enumerate(zip(begins, ((8, None), (-1, 3)), strict=True)):
        born, died = lived
        target = {
            "runtime": "python",
            "pid": 7,
            "level": 1,
            "version": "3.12",
            "from_ns": start + born * SECOND,
            "until_ns": None if died is None else start + died * SECOND,
        }
        collection = {"kind": "stw", "reason": "gc", "pid": 7, "tid": 7, "wait_ns": SECOND // 2}
        rows = [collection | {"end_ns": start + 9 * SECOND - 7 * SECOND * number}]
        meta = {"clock": clock(UNIX, start)}
        parts.append(trace_of(tmp_path, str(number), rows, "one", 0, meta=meta, targets=[target]))
    merge(parts, tmp_path / "m.slt")
    (found,) = python_report(Trace.open(tmp_path / "m.slt")).findings
    assert (found.name, found.value) == ("gc", 0.2)


def test_a_process_found_before_its_part_began_is_of_that_part(tmp_path: Path) -> None:
    """Those that are there are looked into first, and then the recording begins."""

    def target(pid: int, from_ns: int) -> Any:
        return {"runtime": "go", "pid": pid, "level": 1, "version": "go1.27.3", "from_ns": from_ns}

    begins = {"one": 100 * SECOND, "two": 3700 * SECOND}
    targets = {
        "one": [target(7, begins["one"] - SECOND // 10), target(9, begins["one"] + SECOND)],
        "two": [target(8, begins["two"] - 5 * SECOND), target(9, begins["two"] - SECOND)],
    }
    parts = [
        trace_of(tmp_path, name, [{"end_ns": start + SECOND, "tid": tid}], "host", UNIX,
                 meta={"clock": clock(UNIX, start)}, targets=targets[name])
        for tid, (name, start) in enumerate(begins.items(), 1)
    ]  # fmt: skip
    merge(parts, tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    one, two = ((start, start + 10 * SECOND) for start in begins.values())
    for pid, held in ((7, [one]), (8, [two]), (9, [one, two])):
        assert recordings_with(merged, pid) == held
        assert recorded_ns_with(merged, pid) == len(held) * 10 * SECOND


def _merged_of_go(
    tmp_path: Path,
    starts: Sequence[int],
    gauges: Callable[[int], Sequence[tuple[int, str, float]]],
    wait: dict[str, Any],
) -> Trace:
    """Two recordings of 10 s of one Go process, joined.

    Args:
        tmp_path: Where to.
        starts: When each began.
        gauges: Of each recording, by its number: seconds from its start, name and value.
        wait: One wait in each; `end_ns` is from its start.
    """
    parts = []
    for number, start in enumerate(starts, 1):
        rows = [
            {"ns": start + t * SECOND, "pid": 7, "name": name, "value": value}
            for t, name, value in gauges(number)
        ]
        target = {"runtime": "go", "pid": 7, "level": 1, "from_ns": start - SECOND}
        waits = [wait | {"tid": number, "end_ns": start + wait["end_ns"]}]
        meta = {"clock": clock(UNIX, start)}
        parts.append(
            trace_of(tmp_path, str(number), waits, "host", UNIX,
                     meta=meta, targets=[target], gauges=rows)
        )  # fmt: skip
    merge(parts, tmp_path / "m.slt")
    return Trace.open(tmp_path / "m.slt")


def test_probes_were_on_for_a_share_of_what_was_recorded(tmp_path: Path) -> None:
    """Two recordings of 10 s an hour apart, with the probes on for 5 s of each."""
    gauges = [(1, "probes_on", 1.0), (2, "gomaxprocs", 4.0), (6, "probes_on", 0.0)]
    starts = (100 * SECOND, 3700 * SECOND)
    merged = _merged_of_go(tmp_path, starts, lambda _: gauges, {"end_ns": SECOND})
    first, second = windows(merged, 7200 * SECOND)
    # From the first probe on.
    assert first.looked == second.looked == pytest.approx(5 / 9)


def test_windows_are_within_recordings(tmp_path: Path) -> None:
    """Two recordings of 10 s, 27 s apart: neither a window of both, nor any of the time between."""

    def gauges(number: int) -> list[tuple[int, str, float]]:
        read = (("gomaxprocs", 4.0), ("idle_ps", float(number)))
        return [(t, *one) for t in (1, 7, 10) for one in read]

    wait = {"kind": "goroutine", "end_ns": 8 * SECOND, "pid": 7}
    merged = _merged_of_go(tmp_path, (100 * SECOND, 137 * SECOND), gauges, wait)
    seen = [
        (w.start_ns // SECOND, w.end_ns // SECOND, w.p_utilisation, w.waits)
        for w in windows(merged, 30 * SECOND)
    ]
    assert seen == [(0, 10, 0.75, 1), (37, 47, 0.5, 1)]
    seen = [
        (w.start_ns // SECOND, w.end_ns // SECOND, w.p_utilisation, w.waits)
        for w in windows(merged, 6 * SECOND)
    ]
    # What was read as a recording ended is in its last window.
    assert seen == [(0, 6, 0.75, 0), (6, 10, 0.75, 1), (37, 43, 0.5, 0), (43, 47, 0.5, 1)]


def test_what_was_left_out_of_a_part_is_said(tmp_path: Path) -> None:
    left = {"native_stacks_refused": 5, "skipped_probe_runs": 3, "filters": {"comms": ["web"]}}
    sources = {"python": {"stack_rate_per_cpu": 9}}
    a = trace_of(tmp_path, "a", [{"tid": 1}], "one", UNIX, meta=left | {"sources": sources})
    b = trace_of(tmp_path, "b", [{"tid": 2}], "two", UNIX, meta={"native_stacks_refused": 2})
    merge([a, b], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert any(note.startswith("7 times a native stack") for note in merged.notes)
    assert any(note.startswith("3 runs of a probe") for note in merged.notes)
    assert merged.sources("python") == [{"stack_rate_per_cpu": 9}]
    assert facts(merged, build_cube(merged))["filters"] == {"made.slt: comms": "web"}


def test_what_cannot_be_counted_together_is_refused(tmp_path: Path) -> None:
    def of(name: str, **more: Any) -> Trace:
        return trace_of(tmp_path, name, [{"end_ns": 101 * SECOND, "tid": 3}], "one", UNIX, **more)

    a = of("a")
    with pytest.raises(UsageError, match="both have waits of thread 3"):
        merge([a, of("b")], tmp_path / "m.slt")
    with pytest.raises(UsageError, match="--min-latency"):
        merge([a, of("c", meta={"min_latency_ns": 5})], tmp_path / "m.slt")
    with pytest.raises(UsageError, match="--histogram-only"):
        merge([a, of("d", meta={"histogram_only": True})], tmp_path / "m.slt")
    with pytest.raises(UsageError, match="--no-blocked"):
        merge([a, of("e", meta={"blocked": False})], tmp_path / "m.slt")
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([a], tmp_path / "m.slt")
    for i, wrong in enumerate([None, {}, {"start_ns": "soon"}]):
        with pytest.raises(TraceError, match="does not say when"):
            merge([a, of(f"f{i}", meta={"clock": wrong})], tmp_path / "m.slt")
    damaged = of("g")
    (damaged.path / "stacks").mkdir()
    (damaged.path / "stacks" / "000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="cannot be read"):
        merge([a, Trace.open(damaged.path)], tmp_path / "m.slt")
    assert not (tmp_path / "m.slt").exists()


def test_hostile_metadata_is_no_trouble(tmp_path: Path) -> None:
    hostile = {
        "host": "x' || (SELECT 1); --\x1b[2J",
        "nodes": {"a": 1, "0": ["x", -4, 10**9], "-1": []},
        "cpus": -5,
        "overhead": {"probe_ns": "many"},
        "probes": {"attached": 3, "not_attached": None},
        "sources": [],
        "limits": None,
    }
    a = trace_of(tmp_path, "a", [{"end_ns": 101 * SECOND}], "one", UNIX)
    b = trace_of(tmp_path, "b", [{"end_ns": 101 * SECOND}], "", UNIX + 9 * SECOND, meta=hostile)
    result = CliRunner().invoke(command, [str(a.path), str(b.path), "-o", str(tmp_path / "m.slt")])
    assert result.exit_code == 0, result.exception
    assert "\x1b" not in result.output
    merged = Trace.open(tmp_path / "m.slt")
    names = {g.keys[0] for g in stat(merged, ["cgroup"]).groups}
    assert names == {"one:/", f"{hostile['host']}:/"}


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a", [{"end_ns": 101 * SECOND}], "one", UNIX)
    b = trace_of(tmp_path, "b", [{"end_ns": 101 * SECOND}], "two", UNIX + 5 * SECOND)
    out = str(tmp_path / "m.slt")
    result = CliRunner().invoke(command, [str(a.path), str(b.path), "-o", out])
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[1] == ["made.slt", "one", "+0.000", "s", "10.000", "s", "0", "0"]
    assert lines[2] == ["made.slt", "two", "+5.000", "s", "10.000", "s", f"{PID_SPACE:,}", "2"]
    again = CliRunner().invoke(command, [str(a.path), str(b.path), "-o", out])
    assert isinstance(again.exception, OutputError)
    own = CliRunner().invoke(command, [str(a.path), str(b.path), "-f", "-o", str(a.path)])
    assert "one of the traces to merge" in str(own.exception)
    assert a.table("waits").num_rows == 1


def test_a_merge_that_fails_leaves_nothing(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a", [{"tid": 1}], "one", UNIX)
    b = trace_of(tmp_path, "b", [{"tid": 2}], "two", UNIX)
    full = OutputError("cannot write: no space", "what was recorded so far is readable")
    with (
        mock.patch("sltrace.trace.segment.Segment.close", side_effect=full),
        pytest.raises(OutputError, match=r"no space; free some space, or choose another -o"),
    ):
        merge([a, b], tmp_path / "m.slt")
    assert not (tmp_path / "m.slt").exists()
