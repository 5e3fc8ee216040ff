"""From drained records to segments of the trace: waits, and the names and stacks they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.columns import chosen
from sltrace.capture.probes import Probes
from sltrace.capture.rows import RowMaker
from sltrace.capture.sources import Rows, Source
from sltrace.capture.stacks import StackTable
from sltrace.names.cgroups import CgroupNames
from sltrace.names.processes import ProcessNames
from sltrace.symbols.recorder import SymbolRecorder
from sltrace.trace.schema import FILLED_BY_ALL, FILLED_BY_SCHEDULER, arrow_schema
from sltrace.trace.segment import Segment
from sltrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    import pyarrow as pa


LOT = 2 << 20
"""Bytes of records to make rows of at once, up to twice as many. A row group takes 1.5 ms however
small it is; each of its waits takes 0.5 kB of memory meanwhile (measured)."""
_NEVER = (1 << 63) - 1


class Feed:
    """Writes what a recording collects. For the writing thread, but for `put`, `put_tasks`
    and what is said of their backlogs.

    Args:
        writer: The trace.
        probes: Whose names and stacks are drained here, after the waits that need them.
        sources: Whose rows are written beside.
        rows: Makes rows of waits.
        tasks: Names of threads.
        groups: Names of cgroups.
        native: Native stacks.
        symbols: Names of their addresses.
    """

    def __init__(
        self,
        writer: TraceWriter,
        probes: Probes,
        sources: Sequence[Source],
        *,
        rows: RowMaker,
        tasks: ProcessNames,
        groups: CgroupNames,
        native: StackTable,
        symbols: SymbolRecorder,
    ) -> None:
        self.waits = 0
        """Rows of waits written so far."""
        self.missed = 0
        """Rows of missed, waits not seen whole, so far."""
        self.since_ns, self.until_ns = 0, _NEVER
        """The recording's begin and end, which no wait ends before or after. Probes are attached
        before and detached after: those of sources take 50 to 200 ms, and what they tell from then
        has no waits of the scheduler beside it."""
        self._writer = writer
        self._probes = probes
        self._sources = sources
        self._rows = rows
        self._tasks = tasks
        self._groups = groups
        self._symbols = symbols
        self._native = native
        self._segment: Segment | None = None
        self._filled = self._needed = FILLED_BY_SCHEDULER
        # Appended to by one thread and taken from by the other; each count has one writer.
        self._drained: deque[NDArray[Any]] = deque()
        self._task_events: deque[NDArray[Any]] = deque()
        # Task events since the sources' last rows.
        self._exits: list[NDArray[Any]] = []
        self._drained_bytes = self._encoded_bytes = 0
        self._told_bytes = self._named_bytes = 0
        # A segment costs 0.6 ms however small it is, and sources tell of little at a time.
        self._kept: dict[str, list[pa.Table]] = {}
        self._targets: pa.Table | None = None

    def put(self, records: NDArray[Any]) -> None:
        """Takes wait records from the reading thread."""
        self._drained_bytes += records.nbytes
        self._drained.append(records)

    def put_tasks(self, events: NDArray[Any]) -> None:
        """Takes task events from the reading thread; those before any wait that needs the name."""
        self._told_bytes += events.nbytes
        self._task_events.append(events)

    @property
    def backlog(self) -> int:
        """Bytes of records that were put in and are not yet written."""
        return self._drained_bytes - self._encoded_bytes

    @property
    def task_backlog(self) -> int:
        """Bytes of task events that were put in and are not yet taken for names."""
        return self._told_bytes - self._named_bytes

    def encode(self, *, sources: bool) -> None:
        """Makes rows of what was put in, after those of the sources if they are due."""
        drained = [self._drained.popleft() for _ in range(len(self._drained))]
        # After the records were taken: whoever waited in them was named before.
        events = [self._task_events.popleft() for _ in range(len(self._task_events))]
        # A stack does not say when it was taken: one of about an exec is of the new program, which
        # lasts longer; and a process that ends meanwhile still had its stacks' addresses.
        for some in events:
            self._symbols.executed(some)
        self._take_stacks()
        for some in events:
            self._tasks.feed(some)
            self._named_bytes += some.nbytes
        self._exits += events
        self._take_groups()
        if sources:
            self._keep("mappings", self._symbols.look_again())
            for source in self._sources:
                self._write(source.rows())
            # Sources' native stacks have addresses, too.
            if self._exits:
                self._symbols.exited(np.concatenate(self._exits))
                self._exits.clear()
        drained.reverse()
        while drained:
            lot = _lot(drained)
            size = sum(records.nbytes for records in lot)
            waits, missed = (self._within(rows, "end_ns") for rows in self._rows.tables(lot))
            self._add_waits(waits, FILLED_BY_SCHEDULER)
            self.missed += missed.num_rows
            self._keep("missed", missed)
            self._encoded_bytes += size

    def keep(self, tables: Mapping[str, pa.Table]) -> None:
        """Takes rows of any table but waits, for `write_tables`."""
        for table, rows in tables.items():
            self._keep(table, rows)

    def close_segment(self) -> None:
        """Makes all that was added part of the trace."""
        if self._segment:
            self._segment.close()
            self._segment = None
            # The next will most likely be of the same sources.
            self._filled, self._needed = self._needed, FILLED_BY_SCHEDULER

    def write_tables(self, *, final: bool = False) -> None:
        """Writes what came since the last call beside waits, and names; with `final`, all names."""
        import pyarrow as pa

        kept, self._kept = self._kept, {}
        for table, pieces in kept.items():
            self._writer.append(table, pa.concat_tables(pieces, promote_options="permissive"))
        for table, rows in (
            ("tasks", self._tasks.rows(final=final)),
            ("cgroups", self._groups.rows(final=final)),
        ):
            self._writer.append(table, pa.Table.from_pylist(rows, schema=arrow_schema(table)))
        self._write_targets()

    def finish(self) -> None:
        """Writes the sources' last rows, all names and, which may take long, the symbols."""
        for source in self._sources:
            self._write(source.finish())
        self.close_segment()
        self.write_tables(final=True)
        for table, rows in self._symbols.finish():
            self._writer.append(table, rows)

    def _write_targets(self) -> None:
        """Says anew what became of the processes so far, if that has changed."""
        import pyarrow as pa

        pieces = [rows for source in self._sources for rows in source.targets()]
        told = pa.concat_tables(pieces) if pieces else None
        if told is not None and told.num_rows and told != self._targets:
            self._writer.replace("targets", told)
            self._targets = told

    def abandon(self) -> None:
        """Gives up the segment that is being added to."""
        if self._segment:
            self._segment.abandon()

    def _write(self, rows: Rows) -> None:
        for table, data in rows:
            if table == "waits":
                self._add_waits(self._within(data, "end_ns"), FILLED_BY_ALL)
            elif table == "samples":
                self._keep(table, self._within(data, "ns"))
            else:
                self._keep(table, data)

    def _keep(self, table: str, rows: pa.Table) -> None:
        if rows.num_rows:
            self._kept.setdefault(table, []).append(rows)

    def _within(self, rows: pa.Table, moment: str) -> pa.Table:
        ns = rows[moment].to_numpy()
        within = (ns >= self.since_ns) & (ns <= self.until_ns)
        return rows if within.all() else chosen(rows, within)

    def _add_waits(self, rows: pa.Table, filled: frozenset[str]) -> None:
        if not rows.num_rows:
            return
        self._needed &= filled
        if not self._filled <= filled:
            self.close_segment()
            self._filled = self._needed = filled
        self._segment = self._segment or self._writer.segment("waits", filled=self._filled)
        self._segment.add(rows)
        self.waits += rows.num_rows

    def _take_groups(self) -> None:
        changed = self._probes.cgroup_ring.drain()
        if changed is not None:
            self._groups.feed(changed)

    def _take_stacks(self) -> None:
        records = self._probes.stack_ring.drain()
        if records is not None:
            self._write(self._native.add(records))


def _lot(drained: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Takes a LOT from the end of a list, or all if that is less than two; of one type."""
    lot = [drained.pop()]
    size, rest = lot[0].nbytes, sum(more.nbytes for more in drained)
    while drained and drained[-1].dtype == lot[0].dtype and (size < LOT or size + rest < 2 * LOT):
        lot.append(drained.pop())
        size, rest = size + lot[-1].nbytes, rest - lot[-1].nbytes
    return lot
