"""Parquet, JSON and folded exports, read back with other programs' readers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from sltrace.analysis.latency import stat
from sltrace.analysis.selection import Selection
from sltrace.export.folded import frame_text, write_folded
from sltrace.export.json import write_json
from sltrace.export.parquet import write_parquet
from sltrace.export.rows import ordered_waits
from sltrace.trace.merge import STACK_IDS
from sltrace.trace.reader import Trace
from sltrace.trace.schema import TABLES
from tests.support.traces import make_trace

HOSTILE = 'a;b\n"\x1b[2J\u202e\\'


def random_rows(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    kinds = ["runq_wakeup", "runq_preempt", "throttled", "blocked"]
    return [
        {
            "end_ns": int(rng.integers(0, 1000)),
            "wait_ns": int(rng.integers(0, 10**9)),
            "kind": kinds[int(rng.integers(0, 4))],
            "comm": ["web", HOSTILE, None][int(rng.integers(0, 3))],
            "wake_ns": int(rng.integers(0, 9)) or None,
            "migrated": bool(rng.integers(0, 2)),
        }
        for _ in range(count)
    ]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    stacks = [{"stack_id": 3, "space": "user", "pid": 1, "addresses": [0x20, 0x10]}]
    frames = [{"space": "user", "pid": 1, "address": 0x20, "name": HOSTILE}]
    frames[0] |= {"file": "/src/a.go", "line": 7}
    rows = [*random_rows(3000), {"stack_user": 3, "comm": "end", "end_ns": 5000}]
    return Trace.open(make_trace(tmp_path, rows, stacks=stacks, frames=frames))


def total_ns(trace: Trace) -> int:
    return sum(t.total_ns for t in stat(trace).totals.values())


@pytest.mark.parametrize("slice_rows", [30, 1000, 10**6])
def test_slices_are_all_waits_in_order(trace: Trace, slice_rows: int) -> None:
    parts = [
        part.select(["end_ns", "wait_ns"]).to_pylist()
        for part in ordered_waits(trace, Selection(start_ns=100), slice_rows)
    ]
    rows = [row for part in parts for row in part]
    everything = trace.sql("SELECT end_ns, wait_ns FROM waits WHERE end_ns >= 100").to_pylist()
    assert [r["end_ns"] for r in rows] == sorted(r["end_ns"] for r in everything)
    assert sorted(r["wait_ns"] for r in rows) == sorted(r["wait_ns"] for r in everything)
    assert max(map(len, parts)) < 5 * slice_rows


def test_parquet_is_sorted_whole_and_describes_itself(trace: Trace, tmp_path: Path) -> None:
    file = tmp_path / "waits.parquet"
    with file.open("wb") as out:
        written = write_parquet(trace, out)
    back = pl.read_parquet(file)
    assert back.columns == [c.name for c in TABLES["waits"]]
    assert back["end_ns"].is_sorted()
    assert back["wait_ns"].sum() == written.wait_ns == total_ns(trace)
    original = trace.sql("SELECT comm, count(*) AS n FROM waits GROUP BY 1").to_pylist()
    counted = back.group_by(pl.col("comm").cast(pl.String)).len().rows()
    assert sorted(counted, key=str) == sorted(((r["comm"], r["n"]) for r in original), key=str)
    metadata = pq.read_metadata(file)
    assert metadata.row_group(0).sorting_columns[0].column_index == 0
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    description = json.loads(metadata.metadata[b"sltrace"])
    assert description["meta"]["host"] == "testhost"
    assert description["losses"]["sentence"] == "nothing was lost"


def test_what_was_selected_is_in_the_file(trace: Trace, tmp_path: Path) -> None:
    """Whoever gets a part of a recording must not take it for all of it."""
    values = {"kind": ("throttled", None), "cpu": ("3",)}
    selection = Selection(start_ns=100, min_wait_ns=5, values=values)
    said: dict[str, Any] = {"start_ns": 100, "min_wait_ns": 5}
    said |= {"values": {"kind": ["throttled", None], "cpu": ["3"]}}
    for chosen, expected in ((Selection(), {}), (selection, said)):
        out = io.BytesIO()
        write_json(trace, out, chosen)
        assert json.loads(out.getvalue().splitlines()[0])["selection"] == expected
        file = tmp_path / "waits.parquet"
        with file.open("wb") as binary:
            write_parquet(trace, binary, chosen)
        metadata = pq.read_metadata(file).metadata[b"sltrace"]
        assert json.loads(metadata)["selection"] == expected


def test_json_lines_are_the_rows(trace: Trace) -> None:
    out = io.BytesIO()
    written = write_json(trace, out)
    text = out.getvalue()
    assert text.isascii()
    assert not any(c < 0x20 and c != 0x0A for c in text)
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["type"] == "header"
    assert lines[0]["meta"]["kernel"] == "6.18.0"
    waits = [line for line in lines if line["type"] == "wait"]
    expected = trace.sql("SELECT * FROM waits ORDER BY end_ns, tid, kind").to_pylist()

    def key(row: dict[str, Any]) -> str:
        return str(sorted((k, v) for k, v in row.items() if v is not None and k != "type"))

    assert sorted(map(key, waits)) == sorted(map(key, expected))
    assert [w["end_ns"] for w in waits] == [r["end_ns"] for r in expected]
    (stack,) = (line for line in lines if line["type"] == "stack")
    assert [f["name"] for f in stack["frames"]] == ["[unknown]", HOSTILE]
    assert [(f.get("file"), f.get("line")) for f in stack["frames"]] == [
        (None, None),
        ("/src/a.go", 7),
    ]
    end = {"type": "end", "waits": 3001, "wait_ns": total_ns(trace)}
    assert lines[-1] == end
    assert written.wait_ns == end["wait_ns"]


def test_json_has_every_stack_that_a_wait_names(tmp_path: Path) -> None:
    columns = [c for c in STACK_IDS if c != "stack_id"]
    stacks = [
        {"stack_id": i, "space": "go", "pid": 1, "addresses": [i]}
        for i in range(1, len(columns) + 1)
    ]
    row = {column: i for i, column in enumerate(columns, 1)}
    out = io.BytesIO()
    write_json(Trace.open(make_trace(tmp_path, [row], stacks=stacks)), out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [x["id"] for x in lines if x["type"] == "stack"] == sorted(row.values())


def test_folded_lines_parse_whatever_the_names(trace: Trace) -> None:
    out = io.BytesIO()
    write_folded(trace, out, Selection(), roots=["comm", "kind"])
    lines = out.getvalue().decode().splitlines()
    parsed = [line.rsplit(" ", 1) for line in lines]
    assert sum(int(value) for _, value in parsed) == total_ns(trace)
    stacks = [stack.split(";") for stack, _ in parsed]
    assert {len(s) for s in stacks} == {3, 4}
    assert {s[1] for s in stacks} == {"runq_wakeup", "runq_preempt", "throttled", "blocked"}
    name = frame_text(HOSTILE)
    assert ["end", "runq_wakeup", "[unknown]", name] in stacks
    assert name == 'a:b\\x0a"\\x1b[2J\\u202e\\'


def test_folded_counts(trace: Trace) -> None:
    out = io.BytesIO()
    write_folded(trace, out, weight="count", roots=[])
    values = [int(line.rsplit(" ", 1)[1]) for line in out.getvalue().decode().splitlines()]
    assert sorted(values) == [1, 3000]
