"""Merged traces with what runtimes and profilers told beside them."""

from __future__ import annotations

import gzip
from pathlib import Path

from click.testing import CliRunner

from sltrace.cli.merge import command
from sltrace.errors import TraceError, UsageError
from sltrace.profiles.source import ProfileError
from sltrace.profiles.stored import stored_profiles
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, trace_of
from tests.support.profiles import make_pprof
from tests.support.traces import SECOND


def test_traces_of_go_are_merged_and_say_what_is_sampled(tmp_path: Path) -> None:
    go = {"sources": {"go": {"sampled": 8}}}
    paths = [
        trace_of(tmp_path, name, [{"end_ns": 101 * SECOND}], name, UNIX, meta=go).path
        for name in "ab"
    ]
    result = CliRunner().invoke(command, [*map(str, paths), "-o", str(tmp_path / "m.slt")])
    assert result.exit_code == 0, result.exception
    assert "1 in 8" in Trace.open(tmp_path / "m.slt").sampling[0]


def test_profiles_are_merged_at_their_time_on_the_wall_clock(tmp_path: Path) -> None:
    waits = [{"end_ns": 101 * SECOND, "stack_kernel": 1}]
    # The second machine's monotonic clock began at another time.
    a = trace_of(tmp_path, "a", waits, "one", UNIX)
    b = trace_of(tmp_path, "b", waits, "two", UNIX + 4 * SECOND)
    cpu: dict[tuple[str, ...], tuple[int, int]] = {("main", "work"): (3, 30_000_000)}
    timed = tmp_path / "cpu.pb"
    timed.write_bytes(make_pprof(cpu, start_unix_ns=UNIX + 102 * SECOND, duration_ns=5 * SECOND))
    packed = tmp_path / "untimed.pb.gz"
    packed.write_bytes(gzip.compress(make_pprof(cpu)))
    out = tmp_path / "m.slt"
    arguments = [str(timed), str(a.path), str(packed), str(b.path), "-o", str(out)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.exception
    assert "profile cpu.pb: cpu, from +2.000 s, 5.000 s long" in result.output
    assert "untimed.pb.gz: cpu, which does not say when" in result.output
    merged = Trace.open(out)
    rows = {r["app"]: r for r in merged.table("profiles").to_pylist()}
    start = merged.meta["clock"]["start_ns"]
    assert rows["cpu.pb"]["start_ns"] - start == 2 * SECOND
    assert rows["cpu.pb"]["end_ns"] - start == 7 * SECOND
    assert rows["untimed.pb.gz"]["start_ns"] is None
    found, left_out = stored_profiles(merged)
    assert left_out == []
    assert {p.where: (p.start_unix_ns, p.duration_ns, p.values) for p in found} == {
        "cpu.pb": (UNIX + 102 * SECOND, 5 * SECOND, [30_000_000]),
        "untimed.pb.gz": (0, 0, [30_000_000]),
    }
    # Once more, with what was merged before: at the same time again.
    again = tmp_path / "again.slt"
    third = trace_of(tmp_path, "c", waits, "three", UNIX + SECOND)
    merge([third, merged], again)
    assert {p.where: p.start_unix_ns for p in stored_profiles(Trace.open(again))[0]} == {
        "cpu.pb": UNIX + 102 * SECOND,
        "untimed.pb.gz": 0,
    }


def test_a_profile_goes_with_one_trace_and_not_alone(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a", [{"end_ns": 101 * SECOND}], "one", UNIX)
    file = tmp_path / "cpu.pb"
    file.write_bytes(make_pprof({("main",): (1, 1000)}))
    out = ["-o", str(tmp_path / "m.slt")]
    alone = CliRunner().invoke(command, [str(file), *out])
    assert isinstance(alone.exception, UsageError)
    assert CliRunner().invoke(command, [str(file), str(a.path), *out]).exit_code == 0
    file.write_bytes(b"\x1f\x8b no profile")
    bad = CliRunner().invoke(command, [str(file), str(a.path), *out, "-f"])
    assert isinstance(bad.exception, ProfileError)
    assert "cpu.pb" in str(bad.exception)


def test_what_is_neither_a_trace_nor_a_profile_is_said(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, "a", [{}], "one", UNIX).path
    for name, content in (("y.py", b"print()"), ("report.html", b"<!doctype"), ("empty", b"")):
        file = tmp_path / name
        file.write_bytes(content)
        result = CliRunner().invoke(command, [str(trace), str(file), "-o", str(tmp_path / "m")])
        assert isinstance(result.exception, TraceError)
        assert f"{file} is not a trace but " in result.exception.message
        assert "not a pprof profile" in result.exception.message
        assert result.exception.hint == "give the folder that sltrace record -o NAME wrote"
    result = CliRunner().invoke(
        command, [str(trace), str(trace / "meta.json"), "-o", str(tmp_path / "m")]
    )
    assert isinstance(result.exception, TraceError)
    assert f"give all of it: {trace}" in result.exception.hint
