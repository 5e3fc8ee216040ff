"""merge: nothing lost, nothing mixed up, everything at its time on the wall clock."""

from __future__ import annotations

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
from sltrace.analysis.latency import stat
from sltrace.analysis.meta import gaps, recorded_ns
from sltrace.analysis.rules import parse_rule
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import before_and_after, two_traces
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
    "program",
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
        *merging.RUNTIME_STACK_IDS,
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
    # Booted and recorded a day earlier: its monotonic clock is the one that knows both times.
    b, of_b = random_trace(tmp_path, "b", 52, "two", UNIX - 86_400 * SECOND)
    parts = merge([a, b], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert [p.label for p in parts] == ["one", "two"]
    assert merged.meta["cpus"] == 4
    assert merged.notes == []
    both = pd.concat(
        [
            of_a.assign(cgroup="one:" + of_a["cgroup"], end_ns=of_a["end_ns"] + 86_400 * SECOND),
            of_b.assign(
                cgroup="two:" + of_b["cgroup"],
                pid=of_b["pid"] + PID_SPACE,
                tid=of_b["tid"] + PID_SPACE,
                cpu=of_b["cpu"] + 4,
                node=of_b["node"] + 2,
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
    """Two machines see the end of one second of wall clock; one read its clocks 0.5 ms apart."""
    older = clock(UNIX - 3600 * SECOND, 3700 * SECOND)
    older["end_unix_ns"] += SECOND // 2000
    a = trace_of(tmp_path, "a", [{"end_ns": 105 * SECOND}], "one", UNIX)
    b = trace_of(tmp_path, "b", [{"end_ns": 3705 * SECOND}], "two", 0, meta={"clock": older})
    merge([a, b], tmp_path / "m.slt")
    ends = Trace.open(tmp_path / "m.slt").table("waits", ["end_ns"])["end_ns"].to_pylist()
    assert ends == [105 * SECOND, 105 * SECOND]
    merge([b, a], tmp_path / "n.slt")
    merged = Trace.open(tmp_path / "n.slt")
    ends = merged.table("waits", ["end_ns"])["end_ns"].to_pylist()
    assert ends == [3705 * SECOND, 3705 * SECOND]
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
    assert merged.notes == ["made.slt#2: its wall clock was set during the recording"]


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
    assert gaps(merged) == [(110 * SECOND, 3700 * SECOND)]
    assert (recorded_ns(a), gaps(a)) == (10 * SECOND, [])
    (found,) = diagnose(merged).findings
    assert (found.name, found.lost) == ("contention", 0.1)
    for figure, value in (("share", "10%"), ("rate", "0.1/s")):
        for operator, verdict in ((">=", "pass"), (">", "fail")):
            rule = parse_rule(f"{figure}(runq) {operator} {value}")
            assert check(merged, [rule]).verdict == verdict
    waited = {c.name: c for c in diff(two_traces(a, merged)).classes["runq"]}["total_ns"]
    assert (waited.a, waited.b) == (SECOND / 10, SECOND / 10)
    # What is per second is of the seconds that are said.
    sides = before_and_after(merged, 1800 * SECOND, Selection())
    assert [side.to_json()["seconds"] for side in sides] == [10.0, 10.0]
    merged.meta["merged"] = [None, 7, {"start_ns": "x"}, {"start_ns": -1, "end_ns": 10**30}]
    assert (recorded_ns(merged), gaps(merged)) == (0, [])


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
    told = facts(merged, build_cube(merged))["recordings"]
    assert [part["filters"] for part in told] == [{"comms": "web"}, {}]


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


@pytest.mark.parametrize("meta", [{"histogram_only": True}, {"min_latency_ns": 1_000_000}])
def test_what_is_only_counted_is_not_counted_twice(tmp_path: Path, meta: dict[str, Any]) -> None:
    def of(name: str, start: int, cgroup: int, waits: Any = ()) -> Trace:
        count = {"cgroup_id": cgroup, "cgroup": f"/{cgroup}", "policy": "OTHER", "count": 7}
        at = {"start_ns": start * SECOND, "end_ns": (start + 1) * SECOND, "kind": "runq_wakeup"}
        found = {"clock": clock(UNIX, start * SECOND)} | meta
        sums = [{**count, **at, "sum_ns": 700}]
        return trace_of(tmp_path, name, waits, "one", UNIX, meta=found, histogram_sums=sums)

    a = of("a", 100, 1)
    for other in (a, of("b", 100, 1)):
        with pytest.raises(UsageError, match="both count waits of cgroup /1 at the same time"):
            merge([a, other], tmp_path / "m.slt")
    for name, start, cgroup in (("other", 100, 2), ("later", 110, 1)):
        merge([a, of(name, start, cgroup)], tmp_path / f"{name}.slt")
        merged = Trace.open(tmp_path / f"{name}.slt")
        assert sum(merged.table("histogram_sums")["count"].to_pylist()) == 14
    if "min_latency_ns" in meta:
        # Each has longer waits, and none of the other's threads: they are of other threads.
        waits = ([{"end_ns": 101 * SECOND, "tid": tid, "wait_ns": 2_000_000}] for tid in (3, 4))
        merge([of(f"of{i}", 100, 1, w) for i, w in enumerate(waits)], tmp_path / "m.slt")


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


@pytest.mark.parametrize(("limits", "host"), [(5, "\ud800"), ("text", "\udcff"), ([7, {}], 3)])
def test_strange_names_and_lists_are_no_trouble(tmp_path: Path, limits: Any, host: Any) -> None:
    meta = {"limits": limits, "host": host}
    a = trace_of(tmp_path, "a", [{"end_ns": 101 * SECOND}], "one", UNIX)
    b = trace_of(tmp_path, "b", [{"end_ns": 101 * SECOND}], "", UNIX + 9 * SECOND, meta=meta)
    merge([a, b], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    named = {3: "3"}.get(host, "?")
    assert {g.keys[0] for g in stat(merged, ["cgroup"]).groups} == {"one:/", f"{named}:/"}


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a", [{"end_ns": 101 * SECOND}], "one", UNIX)
    b = trace_of(tmp_path, "b", [{"end_ns": 101 * SECOND}], "two", UNIX + 5 * SECOND)
    out = str(tmp_path / "m.slt")
    result = CliRunner().invoke(command, [str(a.path), str(b.path), "-o", out])
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[1] == ["made.slt", "one", "+0.000", "s", "10.000", "s", "0", "0"]
    assert lines[2] == ["made.slt#2", "two", "+5.000", "s", "10.000", "s", f"{PID_SPACE:,}", "2"]
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
