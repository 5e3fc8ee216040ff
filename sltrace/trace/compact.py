"""A long recording's many small segments as few large ones.

A killed recorder may lose a second at most, so it ends a segment twice a second; of an hour that
are 7,200 files, and every query opens them all: `stat` of 35 M waits took 17 s, and 4.5 s from
one file (measured). Once nothing more is recorded nothing is at risk any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sltrace.errors import OutputError
from sltrace.trace.schema import TABLES, arrow_schema
from sltrace.trace.segment import Segment
from sltrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 256
"""Segments of a table from which on they are joined."""
SMALL = 1 << 14
"""Rows under which a segment is joined with its neighbours: others cost more than they bring."""
_GROUP = 1 << 16
_PIECES = 1 << 9
"""Segments of a row group at most: one of few rows still takes 18 kB until it is written
(measured)."""
_ROWS = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def compact(writer: TraceWriter) -> None:
    """Joins the small segments of every table that has many; in order, with the same rows.

    The folders change places in one step: at any moment a reader, or one after a crash, finds all
    rows once. Where that cannot be done (no room for them twice, a file system that knows no
    exchange) the segments stay as they are.
    """
    for table in TABLES:
        folder = writer.path / table
        # Never all at once: of a week they are a million, and a path is half a kB.
        count = size = 0
        for segment in writer.segments(table):
            count, size = count + 1, size + segment.stat().st_size
        if count < MANY or not writer.folder.has_room(size):
            continue
        joined = writer.path / f".{table}"
        with contextlib.suppress(OSError, OutputError):
            joined.mkdir(mode=0o700)
            writer.folder.own(joined)
            _Joiner(writer, table, joined).join(writer.segments(table))
            _exchange(folder, joined)
        shutil.rmtree(joined, ignore_errors=True)


class _Joiner:
    """Writes segments into a folder, small ones joined."""

    def __init__(self, writer: TraceWriter, table: str, folder: Path) -> None:
        self._writer = writer
        self._table = table
        self._folder = folder
        self._files = 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._written_rows = 0
        self._segment: Segment | None = None

    def join(self, segments: Iterable[Path]) -> None:
        """Takes segments in order.

        Raises:
            OSError, OutputError: One cannot be read or written.
        """
        import pyarrow.parquet as pq

        try:
            for segment in segments:
                with pq.ParquetFile(segment) as file:
                    rows = file.read() if file.metadata.num_rows < SMALL else None
                if rows is not None:
                    self._add(rows)
                else:
                    self._end()
                    os.link(segment, self._next())
            self._end()
        except BaseException:
            if self._segment:
                self._segment.abandon()
            raise

    def _next(self) -> Path:
        self._files += 1
        return self._folder / f"{self._files - 1:06d}.parquet"

    def _add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= _GROUP or len(self._waiting) >= _PIECES:
            self._write()
        if self._written_rows >= _ROWS:
            self._end()

    def _write(self) -> None:
        import pyarrow as pa

        if self._segment is None:
            schema = arrow_schema(self._table)
            self._segment = Segment(self._writer.folder, self._table, self._next(), schema)
        self._segment.add(pa.concat_tables(self._waiting, promote_options="permissive"))
        self._written_rows += self._waiting_rows
        self._waiting, self._waiting_rows = [], 0

    def _end(self) -> None:
        if self._waiting:
            self._write()
        if self._segment:
            self._segment.close()
        self._segment, self._written_rows = None, 0


def _exchange(one: Path, other: Path) -> None:
    """Swaps two folders in one step (renameat2, Linux 3.15).

    Raises:
        OSError: The file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")
