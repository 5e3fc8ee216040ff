"""A segment of a table: a Parquet file, written beside its final name and then renamed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from sltrace.errors import OutputError
from sltrace.trace.folder import TraceFolder, private
from sltrace.trace.schema import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

_DELTAS = ("end_ns", "start_ns", "wait_ns", "wake_ns", "culprit_ns", "culprit_others")
"""Delta-encoded: half of plain and two thirds of the time (measured)."""
_SHARED_NULLS = 1 << 16
"""Rows up to which columns without values share them: 20 of a kind are 0.3 kB a row."""
_MUCH = 1 << 18
"""Bytes of a segment that are not kept until it ends."""


class Segment:
    """One Parquet file in the making: each piece is a row group.

    Args:
        folder: The trace's.
        table: Whose columns it has.
        target: The file, which appears when the segment is closed.
        schema: Of its rows.
    """

    def __init__(self, folder: TraceFolder, table: str, target: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._schema = schema
        self._file = _SegmentFile(folder, target)
        columns = TABLES[table]
        self._parquet = pq.ParquetWriter(
            self._file.buffer,
            schema,
            # 0.22 us a record against 0.30 with zstd, for 3 % more bytes (measured). In deltas it
            # finds nothing (0.02 % more bytes), and looks for 3 % of the time (measured).
            compression={c.name: "none" if c.name in _DELTAS else "lz4" for c in columns},
            # Of numbers a dictionary costs 3 ns a value, and lz4 finds the repeats too (measured).
            use_dictionary=[c.name for c in columns if c.type in ("dict", "string")],
            column_encoding={c.name: "DELTA_BINARY_PACKED" for c in columns if c.name in _DELTAS},
            write_statistics=["end_ns", "wait_ns"] if table == "waits" else False,
            # In batches of 1,024, the default, each value takes 7 % longer (measured).
            write_batch_size=1 << 16,
        )

    def add(self, data: pa.Table) -> None:
        """Adds a row group.

        Raises:
            OutputError: It cannot be written; the segment is given up.
        """
        self._parquet.write_table(_conform(data, self._schema))
        with self._given_up_on_failure():
            self._file.flush()

    def close(self) -> None:
        """Makes the segment part of the trace.

        Raises:
            OutputError: As `add`.
        """
        self._parquet.close()
        with self._given_up_on_failure():
            self._file.finish()

    def abandon(self) -> None:
        """Gives the segment up; the trace is without it."""
        # Else pyarrow would close it once more when it is collected, and complain if it cannot.
        self._parquet.is_open = False
        self._file.abandon()

    @contextlib.contextmanager
    def _given_up_on_failure(self) -> Iterator[None]:
        try:
            yield
        except OutputError:
            self.abandon()
            raise


class _SegmentFile:
    """The file of a segment, beside its final name; a small one is written in one go."""

    def __init__(self, folder: TraceFolder, target: Path) -> None:
        self._folder = folder
        self._target = target
        self._beside = target.parent / ".writing"
        self._file: FileIO | None = None
        self.buffer = BytesIO()
        """What is to be written is put here."""

    def flush(self) -> None:
        """Has it written to the disk, if it is much."""
        if self.buffer.tell() >= _MUCH:
            self._hand_on(self._append)

    def finish(self) -> None:
        """Puts the file in its place."""
        self._hand_on(self._put_in_place)

    def abandon(self) -> None:
        """Leaves it as it is."""
        with contextlib.suppress(OutputError):
            self._folder.disk.do(self._close)

    def _hand_on(self, step: Callable[[bytes], None]) -> None:
        data = self.buffer.getvalue()
        self.buffer.seek(0)
        self.buffer.truncate()
        self._folder.disk.do(partial(step, data), len(data))

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = open(self._beside, "wb", buffering=0, opener=private)  # noqa: SIM115
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _close(self) -> None:
        if self._file:
            self._file.close()

    def _put_in_place(self, data: bytes) -> None:
        self._append(data)
        self._close()
        self._folder.put(self._beside, self._target)


def _conform(data: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns in the schema's order and types; missing ones become nulls."""
    import pyarrow as pa

    unknown = set(data.column_names) - set(schema.names)
    if unknown:
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    have = set(data.column_names)
    columns = [
        _cast(data.column(f.name), f.type) if f.name in have else _nulls(f.type, data.num_rows)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _nulls(kind: pa.DataType, rows: int) -> pa.Array:
    if rows > _SHARED_NULLS:
        import pyarrow as pa

        return pa.nulls(rows, kind)
    return _shared_nulls(kind).slice(0, rows)


@cache
def _shared_nulls(kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(_SHARED_NULLS, kind)


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    return column.cast(wanted)
