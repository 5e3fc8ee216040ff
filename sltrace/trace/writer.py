"""Writes a trace so that it can be read at any moment, also after `kill -9` of the writer.

A segment is written beside its final name and then renamed, so a reader sees whole files only.
Nothing is ever rewritten but `meta.json`, which is replaced by rename as well. While something is
recorded the files are written aside (sltrace.trace.disk).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.errors import OutputError
from sltrace.trace.disk import Disk
from sltrace.trace.schema import FORMAT, TABLES, VERSION, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

META = "meta.json"

_TIMES = ("end_ns", "start_ns", "wait_ns", "wake_ns", "culprit_ns")
"""Delta-encoded: half of plain (measured)."""
_MUCH = 1 << 18
"""Bytes of a segment that are not kept until it ends."""


class TraceWriter:
    """A trace that is being written. Files are 0600 in a 0700 folder.

    Args:
        path: Folder to write into; it exists already and is empty but for sltrace's own files.
        meta: The trace's description; keys as in docs/schema.md.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self._meta = {"format": FORMAT, "version": list(VERSION), "finished": False, **meta}
        self._segments = dict.fromkeys(TABLES, 0)
        self._owner = _invoking_user()
        self.disk = Disk()
        """On which all of it is written."""
        self.own(path)
        self._write_meta()

    @classmethod
    def create(cls, path: Path, meta: dict[str, Any], *, force: bool = False) -> TraceWriter:
        """Makes the folder and starts the trace.

        Args:
            path: The trace to write, `NAME.slt`.
            meta: See the class.
            force: Replace a trace that is there. Only ever removes what is a sltrace trace.

        Raises:
            OutputError: The path exists, or cannot be created.
        """
        refuse_existing(path, force=force)
        if path.exists():
            _remove_trace(path)
        try:
            path.mkdir(mode=0o700)
        except OSError as err:
            raise OutputError(f"cannot create {path}: {err.strerror}", "choose another -o") from err
        return cls(path, meta)

    def append(self, table: str, data: pa.Table) -> None:
        """Adds rows as one segment: columns in any order, nullable ones may be left out.

        Raises:
            OutputError: The disk is full or the folder is gone. Earlier segments stay readable.
        """
        if data.num_rows:
            segment = self.segment(table, nullable=True)
            segment.add(data)
            segment.close()

    def segment(self, table: str, *, nullable: bool = False) -> Segment:
        """Starts a segment that is added to piece by piece and appears when it is closed.

        Args:
            table: Which table.
            nullable: Rows may lack also what no recorder leaves out (NEVER_NULL).
        """
        folder = self.path / table
        number = self._segments[table]
        self._segments[table] += 1
        try:
            if number == 0:
                self.disk.do(partial(self._make_folder, folder))
            target = folder / f"{number:06d}.parquet"
            return Segment(self, table, target, arrow_schema(table, nullable=nullable))
        except OSError as err:
            raise self.cannot_write(err) from err

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within, what is added is written on a thread of its own; at the end all is written.

        Raises:
            OutputError: As `append`.
        """
        try:
            with self.disk.aside():
                yield
        except OSError as err:
            raise self.cannot_write(err) from err

    def update_meta(self, **fields: Any) -> None:
        """Replaces keys of meta.json on disk."""
        self._meta.update(fields)
        self._write_meta()

    def close(self) -> None:
        """Marks the trace as finished."""
        self.update_meta(finished=True)

    def _write_meta(self) -> None:
        # For people only in the end: with an indent it takes 4 times as long (measured).
        text = json.dumps(self._meta, indent=1 if self._meta["finished"] else None) + "\n"
        try:
            self.disk.do(partial(self._replace_meta, text.encode()), len(text))
        except OSError as err:
            raise self.cannot_write(err) from err

    def _replace_meta(self, text: bytes) -> None:
        beside = self.path / ".meta"
        with open(beside, "wb", opener=_private) as out:
            out.write(text)
        self.own(beside)
        beside.rename(self.path / META)

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.own(folder)

    def cannot_write(self, err: OSError) -> OutputError:
        """The error to raise for a failed write; what was written is whole."""
        hint = "what was recorded so far is readable"
        if err.errno == errno.ENOSPC:
            hint = f"free some space; {hint}"
        return OutputError(f"cannot write {self.path}: {err.strerror}", hint)

    def own(self, path: Path) -> None:
        """Hands a file or folder to the user behind sudo."""
        if self._owner:
            os.chown(path, *self._owner, follow_symlinks=False)


class Segment:
    """One Parquet file in the making: each piece is a row group."""

    def __init__(self, writer: TraceWriter, table: str, target: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._writer = writer
        self._schema = schema
        self._file = _SegmentFile(writer, target)
        columns = TABLES[table]
        self._parquet = pq.ParquetWriter(
            self._file.buffer,
            schema,
            # 0.22 us a record against 0.30 with zstd, for 3 % more bytes (measured).
            compression="lz4",
            # Of numbers a dictionary costs 3 ns a value, and lz4 finds the repeats too (measured).
            use_dictionary=[c.name for c in columns if c.type in ("dict", "string")],
            column_encoding={c.name: "DELTA_BINARY_PACKED" for c in columns if c.name in _TIMES},
            write_statistics=["end_ns", "wait_ns"] if table == "waits" else False,
        )

    def add(self, data: pa.Table) -> None:
        """Adds a row group.

        Raises:
            OutputError: As TraceWriter.append.
        """
        self._parquet.write_table(_conform(data, self._schema))
        self._hand_on(self._file.flush)

    def close(self) -> None:
        """Makes the segment part of the trace.

        Raises:
            OutputError: As TraceWriter.append.
        """
        self._parquet.close()
        self._hand_on(self._file.finish)

    def abandon(self) -> None:
        """Gives the segment up; the trace is without it."""
        # Else pyarrow would close it once more when it is collected, and complain if it cannot.
        self._parquet.is_open = False
        self._file.abandon()

    def _hand_on(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as err:
            self.abandon()
            raise self._writer.cannot_write(err) from err


class _SegmentFile:
    """The file of a segment, beside its final name; a small one is written in one go."""

    def __init__(self, writer: TraceWriter, target: Path) -> None:
        self._writer = writer
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
        with contextlib.suppress(OSError):
            self._writer.disk.do(self._close)

    def _hand_on(self, step: Callable[[bytes], None]) -> None:
        data = self.buffer.getvalue()
        self.buffer.seek(0)
        self.buffer.truncate()
        self._writer.disk.do(partial(step, data), len(data))

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = open(self._beside, "wb", buffering=0, opener=_private)  # noqa: SIM115
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _close(self) -> None:
        if self._file:
            self._file.close()

    def _put_in_place(self, data: bytes) -> None:
        self._append(data)
        self._close()
        self._writer.own(self._beside)
        self._beside.rename(self._target)


def warm_up() -> None:
    """Imports what writing needs before something is recorded that it would delay.

    For its first array pyarrow imports pandas, where that is installed: 0.25 s of CPU (measured).
    Its allocator is kept from a thread of its own, which would keep all privileges of now.
    """
    setting = "JE_ARROW_MALLOC_CONF"
    before = os.environ.get(setting)
    os.environ[setting] = "background_thread:false"
    import pyarrow as pa
    import pyarrow.parquet

    # Of the three there are it keeps least to itself: 126 MB resident at 100,000 waits/s, 149 with
    # mimalloc, and is no slower (measured).
    pa.set_memory_pool(pa.system_memory_pool())
    pa.array([])
    # It is not for the command that is recorded.
    if before is None:
        del os.environ[setting]
    else:
        os.environ[setting] = before


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def _invoking_user() -> tuple[int, int] | None:
    """The user behind sudo, who is to own the trace."""
    if os.geteuid() != 0:
        return None
    try:
        return int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None


def refuse_existing(path: Path, *, force: bool) -> None:
    """Checks that a trace may be written to `path`; changes nothing.

    Raises:
        OutputError: Something is there, and `force` is not given or it is not a trace.
    """
    if not (path.is_symlink() or path.exists()):
        return
    if not force:
        raise OutputError(f"{path} exists already", "give --force to replace it, or another -o")
    try:
        with open(path / META, encoding="utf-8") as file:
            ours = json.load(file).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    if path.is_symlink() or not ours:
        raise OutputError(f"{path} exists and is not a trace", "--force replaces traces only")


def _remove_trace(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as err:
        raise OutputError(f"cannot remove {path}: {err.strerror}", "choose another -o") from err


def _conform(data: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns in the schema's order and types; missing ones become nulls."""
    import pyarrow as pa

    unknown = set(data.column_names) - set(schema.names)
    if unknown:
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    have = set(data.column_names)
    columns = [
        _cast(data.column(f.name), f.type) if f.name in have else pa.nulls(data.num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    return column.cast(wanted)
