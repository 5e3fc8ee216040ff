"""What is counted of that which a recording writes."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sltrace.capture.feed import LOT, Feed
from sltrace.capture.sources import Rows
from sltrace.trace.reader import Trace
from sltrace.trace.schema import arrow_schema
from sltrace.trace.writer import TraceWriter


def quiet_probes() -> Mock:
    """Probes whose rings are empty."""
    probes = Mock()
    probes.stack_ring.drain.return_value = probes.cgroup_ring.drain.return_value = None
    return probes


def test_what_is_missed_are_rows_of_missed() -> None:
    rows = Mock()
    waits = arrow_schema("waits").empty_table()
    rows.tables.side_effect = lambda lot: (waits, pa.table({"end_ns": np.concatenate(lot)}))
    others = {name: Mock() for name in ("tasks", "groups", "native", "symbols")}
    feed = Feed(Mock(), quiet_probes(), (), rows=rows, **others)
    for count in (3, 0, 2):
        feed.put(np.zeros(count))
        feed.encode(sources=False)
    assert (feed.missed, feed.waits) == (5, 0)


def test_what_ended_before_the_recording_began_or_after_its_end_is_no_part_of_it() -> None:
    """The rings are emptied, and it begins a moment later; probes are detached after its end."""
    rows, tables = Mock(), Mock()
    table = pa.table({"end_ns": [8, 10, 13, 9, 12]})
    rows.tables.return_value = table, table
    samples = pa.table({"ns": [9, 10, 12, 13]})
    source = Mock(rows=lambda: [("waits", table), ("samples", samples)], targets=lambda: ())
    tables.rows.return_value = []
    symbols = Mock(look_again=lambda: pa.table({"pid": [7]}))
    writer, others = Mock(), {"native": Mock(), "symbols": symbols}
    feed = Feed(writer, quiet_probes(), [source], rows=rows, tasks=tables, groups=tables, **others)
    feed.since_ns, feed.until_ns = 10, 12
    feed.put(np.zeros(1))
    feed.encode(sources=True)
    added = [call.args[0] for call in writer.segment.return_value.add.call_args_list]
    assert [rows["end_ns"].to_pylist() for rows in added] == [[10, 12]] * 2
    assert (feed.waits, feed.missed) == (4, 2)
    feed.write_tables()
    written = dict(call.args for call in writer.append.call_args_list)
    assert written["samples"]["ns"].to_pylist() == [10, 12]
    assert written["missed"]["end_ns"].to_pylist() == [10, 12]
    assert written["mappings"]["pid"].to_pylist() == [7]


def test_addresses_of_sources_are_looked_up_before_their_process_is_given_up() -> None:
    """Also if it ended while rows were made of the scheduler's waits alone."""
    told: list[str] = []

    def rows() -> Rows:
        told.append("rows")
        yield from ()

    source = Mock(rows=rows)
    symbols = Mock(exited=lambda events: told.append(f"{len(events)} exited"))
    others = {name: Mock() for name in ("rows", "tasks", "groups", "native")}
    feed = Feed(Mock(), quiet_probes(), [source], symbols=symbols, **others)
    feed.put_tasks(np.zeros(3))
    feed.encode(sources=False)
    assert told == []
    feed.put_tasks(np.zeros(1))
    feed.encode(sources=True)
    feed.encode(sources=True)
    assert told == ["rows", "4 exited", "rows"]


def test_task_events_count_until_they_are_taken_for_names() -> None:
    counted: list[int] = []
    tasks = Mock()
    others = {name: Mock() for name in ("rows", "groups", "native", "symbols")}
    feed = Feed(Mock(), quiet_probes(), (), tasks=tasks, **others)
    tasks.feed.side_effect = lambda events: counted.append(feed.task_backlog)
    for count in (3, 2):
        feed.put_tasks(np.zeros(count))
    feed.encode(sources=False)
    assert counted == [40, 16]
    assert (feed.task_backlog, feed.backlog) == (0, 0)


@given(st.lists(st.integers(1, 5 * LOT // 2), max_size=12))
def test_lots_are_neither_many_nor_large(sizes: list[int]) -> None:
    lots: list[int] = []
    rows = Mock()

    def tables(lot: list[NDArray[np.uint8]]) -> tuple[pa.Table, pa.Table]:
        lots.append(sum(records.nbytes for records in lot))
        return arrow_schema("waits").empty_table(), arrow_schema("missed").empty_table()

    rows.tables.side_effect = tables
    others = {name: Mock() for name in ("tasks", "groups", "native", "symbols")}
    feed = Feed(Mock(), quiet_probes(), (), rows=rows, **others)
    for size in sizes:
        feed.put(np.empty(size, np.uint8))
    feed.encode(sources=False)
    assert sum(lots) == sum(sizes)
    assert feed.backlog == 0
    assert all(lot < 2 * LOT + max(sizes) for lot in lots)
    assert all(lot >= LOT for lot in lots[:-1])


def test_targets_are_told_anew_when_they_change(tmp_path: Path) -> None:
    """So that a recorder that is killed has told of them."""
    schema = arrow_schema("targets")
    told = [schema.empty_table()]
    source = Mock(targets=lambda: told)
    tables = Mock()
    tables.rows.return_value = []
    others = {name: Mock() for name in ("rows", "native", "symbols")}
    writer = TraceWriter.create(tmp_path / "t.slt", {})
    feed = Feed(writer, quiet_probes(), [source], tasks=tables, groups=tables, **others)
    feed.write_tables()
    assert not (writer.path / "targets").exists()
    for level in (0, 1):
        told[:] = [pa.Table.from_pylist([{"pid": 7, "level": level}], schema=schema)]
        feed.write_tables()
        file = writer.path / "targets" / "000000.parquet"
        written = file.stat().st_ino
        feed.write_tables()
        assert file.stat().st_ino == written
        assert Trace.open(writer.path).table("targets").select(["pid", "level"]).to_pylist() == [
            {"pid": 7, "level": level}
        ]


def test_columns_that_only_the_scheduler_fills_are_said_to_be_filled_where_no_other_waits_are(
    tmp_path: Path,
) -> None:
    """Written so they cost less; a segment that has both kinds of waits has nulls in them."""
    by_all = {"end_ns": 1, "wait_ns": 1, "kind": "gil", "pid": 1, "tid": 1, "comm": "x", "cpu": 0}
    by_all |= {"cgroup_id": 1, "cgroup": "/", "flags": 0}
    by_scheduler = by_all | {"prev_cpu": 0, "node": 0, "migrated": False, "policy": "OTHER"}
    by_scheduler |= {"prio": 120, "nice": 0, "state": "S"}
    schema = arrow_schema("waits")
    ours = pa.Table.from_pylist([by_scheduler], schema=schema)
    rows = Mock()
    rows.tables.return_value = ours, arrow_schema("missed").empty_table()
    source = Mock()
    others = {name: Mock() for name in ("tasks", "groups", "native", "symbols")}
    writer = TraceWriter.create(tmp_path / "t.slt", {})
    feed = Feed(writer, quiet_probes(), [source], rows=rows, **others)
    theirs = pa.table({name: [value] for name, value in by_all.items()})
    for told in ([], [], [("waits", theirs)], [("waits", theirs)], [], []):
        source.rows.return_value = told
        for due in (False, True):
            feed.put(np.zeros(1))
            feed.encode(sources=due)
        feed.close_segment()
    segments = [pq.read_schema(f) for f in sorted((writer.path / "waits").iterdir())]
    # In the third period the other's waits came after the first of the scheduler.
    nullable = [s.field("prio").nullable for s in segments]
    assert nullable == [False, False, False, True, True, True, False]
    assert all(not s.field("end_ns").nullable for s in segments)
    kinds = "SELECT kind = 'gil' AND prio IS NULL OR prio = 120 AS right, count(*) AS n FROM waits"
    found = Trace.open(writer.path).sql(kinds + " GROUP BY ALL").to_pylist()
    assert found == [{"right": True, "n": 14}]
