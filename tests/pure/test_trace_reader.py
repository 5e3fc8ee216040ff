"""Traces that are cut short, damaged, foreign or newer: read as far as they go, or one error."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sltrace.analysis.blame import blame
from sltrace.analysis.check import check
from sltrace.analysis.cube import build_cube
from sltrace.analysis.diff import diff
from sltrace.analysis.golang.chain import chain
from sltrace.analysis.latency import stat
from sltrace.analysis.rules import parse_rule
from sltrace.analysis.sides import two_traces
from sltrace.errors import OutputError, TraceError
from sltrace.trace.reader import Trace
from sltrace.trace.schema import TABLES, VERSION, arrow_schema
from sltrace.trace.writer import TraceWriter, refuse_existing
from tests.support.cli import in_process
from tests.support.traces import META, make_trace

ROWS = [{"wait_ns": 1000 * i, "tid": 100 + i % 3} for i in range(1, 50)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_trace(tmp_path, ROWS)


def change_meta(path: Path, **fields: object) -> None:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | fields))


def test_other_tools_read_it(path: Path) -> None:
    wanted = sum(int(row["wait_ns"]) for row in ROWS)
    assert pd.read_parquet(path / "waits")["wait_ns"].sum() == wanted
    assert pl.scan_parquet(path / "waits" / "*.parquet").collect()["wait_ns"].sum() == wanted
    files = str(path / "waits" / "*.parquet")
    query = "SELECT sum(wait_ns) FROM read_parquet(?)"
    assert Trace.open(path).connection.execute(query, [files]).fetchone() == (wanted,)


def test_a_copy_in_part_says_so(tmp_path: Path) -> None:
    rows = Trace.open(make_trace(tmp_path, [{"wait_ns": 1}])).table("waits")
    writer = TraceWriter.create(tmp_path / "whole.slt", META)
    for _ in range(5):
        writer.append("waits", rows)
    assert not Trace.open(writer.path).damage
    writer.close()
    assert not Trace.open(writer.path).damage
    for segment in sorted((writer.path / "waits").iterdir())[2:]:
        segment.unlink()
    trace = Trace.open(writer.path)
    assert trace.damage == ["waits/ lacks 3 segments: a copy in part?"]
    assert stat(trace).losses.sentence == "1 part of the trace cannot be read"
    (outcome,) = check(trace, [parse_rule("count(runq) < 3")]).outcomes
    assert outcome.verdict == "unknown"
    for strange in ({"waits": "x"}, {"waits": -1}, [5], None, {"waits": True}):
        trace.meta["segments"] = strange
        (writer.path / "meta.json").write_text(json.dumps(trace.meta))
        assert not Trace.open(writer.path).damage


@pytest.mark.parametrize(
    ("name", "taken_for"),
    [
        ("w[1]", "w1"),
        ("a*b", "axb"),
        ("a?b", "axb"),
        ("a\\b", "ab"),
        ("cpu=7", None),
        ("kind=blocked", None),
        ("wait_ns=99", None),
    ],
)
def test_a_path_is_no_pattern_and_no_column(
    tmp_path: Path, name: str, taken_for: str | None
) -> None:
    for folder, cpu in (name, 3), (taken_for, 4):
        if folder:
            (tmp_path / folder).mkdir()
            make_trace(tmp_path / folder, [{"cpu": cpu, "wait_ns": 10 + cpu}])
    trace = Trace.open(tmp_path / name / "made.slt")
    rows = trace.sql("SELECT cpu, wait_ns, kind FROM waits").to_pylist()
    assert rows == [{"cpu": 3, "wait_ns": 13, "kind": "runq_wakeup"}]


def test_a_path_that_only_a_pattern_could_tell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\\[b]").mkdir()
    with pytest.raises(TraceError, match="has a backslash beside"):
        Trace.open(make_trace(tmp_path / "a\\[b]"))


def test_nobody_waits_for_who_writes_to_a_pipe(path: Path) -> None:
    os.mkfifo(path / "waits" / "000001.parquet")
    assert Trace.open(path).notes == ["waits/000001.parquet is no file"]
    (path / "meta.json").unlink()
    os.mkfifo(path / "meta.json")
    with pytest.raises(TraceError, match=r"its meta.json is no file"):
        Trace.open(path)
    with pytest.raises(OutputError, match="is not a trace"):
        refuse_existing(path, force=True)


def test_rows_come_back_as_they_were_written(path: Path) -> None:
    table = Trace.open(path).table("waits")
    assert table.column_names == [c.name for c in TABLES["waits"]]
    assert table.column("wait_ns").to_pylist() == [row["wait_ns"] for row in ROWS]
    assert table.column("trace_id").null_count == len(ROWS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "other"}, "is not a trace: meta.json is another program's"),
        ({"version": [VERSION[0] + 1, 0]}, "upgrade sltrace"),
        ({"version": [VERSION[0] - 1, 9]}, "record again"),
        ({"version": "1"}, "has no version"),
    ],
)
def test_foreign_and_newer(path: Path, fields: dict[str, object], message: str) -> None:
    change_meta(path, **fields)
    with pytest.raises(TraceError, match=message):
        Trace.open(path)


def test_a_newer_minor_version_is_read(path: Path) -> None:
    change_meta(path, version=[VERSION[0], VERSION[1] + 1])
    assert Trace.open(path).table("waits").num_rows == len(ROWS)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000])
def test_damaged_metadata(path: Path, content: bytes) -> None:
    (path / "meta.json").write_bytes(content)
    with pytest.raises(TraceError):
        Trace.open(path)


def test_what_is_not_a_trace(path: Path, tmp_path: Path) -> None:
    """Whatever is there instead, it is said, and what to give."""
    (tmp_path / "perf.data").write_bytes(b"PERFILE2")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "no.slt" / "waits").mkdir(parents=True)
    segment = next((path / "waits").glob("*.parquet"))
    for wrong, what, hint in (
        (tmp_path / "perf.data", "is not a trace but a file", "give the folder that sltrace"),
        (tmp_path / "empty", "is not a trace but an empty file", "give the folder that sltrace"),
        (Path("/dev/null"), "is not a trace but a file", "give the folder that sltrace"),
        (tmp_path / "folder", "is not a trace: it has no meta.json", "give the folder that sl"),
        (tmp_path / "no.slt", "is damaged: it has no meta.json", "copy the trace again"),
        (tmp_path / "nothing.slt", "does not exist", "sudo sltrace record -o NAME"),
        (path.parent, "is not a trace", f"it has some: give one, as {path}"),
        (path / "meta.json", "is only a part of a trace", f"give all of it: {path}"),
        (path / "waits", "is only a part of a trace", f"give all of it: {path}"),
        (segment, "is only a part of a trace", f"give all of it: {path}"),
    ):
        with pytest.raises(TraceError) as raised:
            Trace.open(wrong)
        assert raised.value.message == f"{wrong} {what}"
        assert hint in raised.value.hint


def test_a_killed_recorder_leaves_a_readable_trace(tmp_path: Path) -> None:
    path = tmp_path / "killed.slt"
    writer = TraceWriter.create(path, META)
    whole = Trace.open(make_trace(tmp_path, ROWS)).table("waits")
    writer.append("waits", whole)
    unfinished = writer.segment("waits")
    unfinished.add(whole)
    assert "still being recorded" in Trace.open(path).notes[0]
    unfinished.abandon()
    writer.folder.close()
    trace = Trace.open(path)
    assert trace.table("waits").num_rows == len(ROWS)
    assert "killed" in trace.notes[0]


def test_a_segment_of_another_program_is_named(path: Path) -> None:
    strange = pd.DataFrame({"end_ns": ["yesterday"], "colour": ["red"]})
    strange.to_parquet(path / "waits" / "000007.parquet")
    trace = Trace.open(path)
    assert trace.table("waits").num_rows == len(ROWS)
    assert any("000007.parquet" in note for note in trace.notes)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_segment_never_ends_in_a_traceback(data: st.DataObject, path: Path) -> None:
    segment = path / "waits" / "000000.parquet"
    whole = path / "whole"
    if not whole.exists():
        whole.write_bytes(segment.read_bytes())
    raw = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    else:
        for _ in range(data.draw(st.integers(1, 8))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    segment.write_bytes(raw)
    looks: list[Callable[[Trace], object]] = [stat, blame, build_cube]
    look = data.draw(st.sampled_from(looks))
    with contextlib.suppress(TraceError):
        look(Trace.open(path))


def test_every_table_can_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.slt"
    TraceWriter.create(path, META).close()
    trace = Trace.open(path)
    for table in TABLES:
        assert trace.table(table).schema.names == arrow_schema(table).names


def printed_by(code: str, folder: Path) -> list[str]:
    """What a process of its own says, by words."""
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.check_output(command, text=True, stderr=subprocess.PIPE).split()


def test_writing_imports_nothing_that_was_not_there_before(tmp_path: Path) -> None:
    """Within a recording that would delay what is recorded."""
    code = (
        "import sys; from pathlib import Path; import tests.support.traces as traces; "
        "from sltrace.trace.writer import warm_up; warm_up(); before = set(sys.modules); "
        "traces.make_trace(Path(sys.argv[1]), [{'wait_ns': 1, 'tid': 2}]); "
        "print(*set(sys.modules) - before)"
    )
    assert printed_by(code, tmp_path) == []


def test_writing_takes_its_memory_from_the_c_library(tmp_path: Path) -> None:
    """Also what Arrow's Parquet writer takes by itself, which is most of it."""
    code = (
        "import os, sys; from pathlib import Path; before = dict(os.environ); "
        "from sltrace.trace.writer import warm_up; warm_up(); assert os.environ == before; "
        "import pyarrow as pa; import tests.support.traces as traces; "
        "traces.make_trace(Path(sys.argv[1]), [{'wait_ns': 1, 'tid': 2}]); "
        "print(pa.mimalloc_memory_pool().max_memory(), pa.system_memory_pool().max_memory() > 0)"
    )
    assert printed_by(code, tmp_path) == ["0", "True"]


def test_what_there_was_too_much_of_is_said(tmp_path: Path) -> None:
    said = {
        "native_stacks_refused": "1,200 times a native stack was left out: there were too many",
        "mapped_files_refused": "1,200 mapped files were not looked into: addresses in them have no"
        " names",
        "ended_processes_refused": "1,200 ended processes were too many: addresses in them have"
        " no names",
        "perf_maps_missed": "1,200 ended processes' perf maps could not be read: what their JITs"
        " made has no names",
        "perf_maps_refused": "1,200 perf maps were too much for one user: what JITs made has no"
        " names",
        "perf_maps_cut": "1,200 perf maps were longer than 64 MiB: what JITs made before that has"
        " no names",
        "processes_unknown": "1,200 processes were not looked at in time: whether they are Python's"
        " is not known",
        "ended_targets_refused": "1,200 ended processes have no row in targets: there were too"
        " many",
        "cpus_not_sampled": "1,200 CPUs came online, or came back, meanwhile: no CPU samples of"
        " them since",
        "skipped_probe_runs": "1,200 runs of a probe were skipped by the kernel, as it was running"
        " already",
    }
    for key, note in said.items():
        cases: tuple[tuple[object, list[str]], ...]
        cases = ((1200, [note]), (0, []), (10**400, []), ("many", []))
        for number, (count, notes) in enumerate(cases):
            path = tmp_path / f"{key}{number}.slt"
            TraceWriter.create(path, META | {key: count}).close()
            assert Trace.open(path).notes == notes
    path = tmp_path / "sources.slt"
    sources = {"go": {"stacks_refused": 1000}, "python": {"stacks_refused": 200}}
    TraceWriter.create(path, META | {"sources": sources}).close()
    assert Trace.open(path).notes == [
        "1,200 times a stack of Go or Python was left out: there were too many"
    ]


@pytest.mark.parametrize("strange", [[8], {"x": []}, "2", None, 10**30, 1.5])
def test_what_a_source_says_may_be_anything(tmp_path: Path, strange: object) -> None:
    go = dict.fromkeys(("level_asked_for", "sampled", "failed", "processes", "budget"), strange)
    meta = {"sources": {"go": go, "python": go}, "notes": strange}
    row = {"kind": "goroutine", "pid": 7, "goid": 5, "wait_ns": 9}
    trace = Trace.open(make_trace(tmp_path, [row], meta=meta))
    assert diff(two_traces(trace, trace)).classes["goroutine"]
    assert check(trace, [parse_rule("count(goroutine) < 9")]).verdict in ("pass", "unknown")
    assert any("who woke whom" in note for note in chain(trace, goid=5).notes)


@pytest.mark.parametrize(
    "clock",
    [
        {"start_ns": 9, "end_ns": 5},
        {"start_ns": 0, "end_ns": float("inf")},
        {"start_ns": float("nan"), "end_ns": 5},
        {"start_ns": 0.0, "end_ns": 5.0},
        {"start_ns": 0, "end_ns": 2**63},
        {"start_ns": -1, "end_ns": 5},
        {"start_ns": False, "end_ns": True},
        {"start_ns": None, "end_ns": 5},
        {"start_ns": 5},
        {"end_ns": 5},
    ],
)
@pytest.mark.parametrize("command", ["diff", "blame", "report", "stat"])
def test_times_that_cannot_be_are_damage(
    tmp_path: Path, clock: dict[str, object], command: str
) -> None:
    path = make_trace(tmp_path, [{}], meta={"clock": clock})
    with_b = [str(path)] if command == "diff" else []
    done = in_process(command, str(path), *with_b)
    assert done.returncode == 5
    assert f"sltrace: {path} is damaged: " in done.stderr


def test_while_it_is_recorded_the_end_is_not_known(tmp_path: Path) -> None:
    path = make_trace(tmp_path, [{}])
    meta = json.loads((path / "meta.json").read_text())
    del meta["clock"]["end_ns"]
    (path / "meta.json").write_text(json.dumps(meta | {"finished": False}))
    assert Trace.open(path).meta["clock"]["start_ns"] == 0


@pytest.mark.parametrize("clock", [None, {}])
def test_a_trace_that_does_not_say_when_it_was_is_compared_with_none(
    tmp_path: Path, clock: object
) -> None:
    path = str(make_trace(tmp_path, [{}], meta={"clock": clock}))
    done = in_process("diff", path, path)
    assert done.returncode == 5
    assert "is damaged: it does not say when it was recorded" in done.stderr
    assert in_process("stat", path).returncode == 0
