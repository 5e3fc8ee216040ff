"""Opens a trace for analysis: DuckDB views over its Parquet segments.

A trace may come from anyone: its metadata is checked, and a segment that is not Parquet with the
columns of the schema is left out and named in `notes`, never guessed at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.errors import TraceError
from sltrace.plural import counted
from sltrace.trace import notes
from sltrace.trace.database import connect, rows_of, unreadable_name
from sltrace.trace.folder import is_locked
from sltrace.trace.meta import RERECORD, read_meta
from sltrace.trace.schema import TABLES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_DAMAGE = 5
"""Parts that cannot be read that are named, each in a note."""


class Trace:
    """A readable trace.

    Attributes:
        path: Its folder.
        meta: `meta.json`; keys as in docs/schema.md.
        notes: What is not whole, a sentence each: `damage`, `sampling`, and an end that is missing.
        damage: What could not be read.
        sampling: What is there only in part.
        looked_in_part: Why waits of goroutines and stopped worlds are of a part of the time; empty
            if they are not.
        connection: DuckDB connection with one view per table of the schema.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self.notes: list[str] = []
        self.damage: list[str] = []
        self._folders: dict[str, tuple[int, int] | None] = {}
        self._listed: dict[str, tuple[list[Path], set[str]]] = {}
        self._conditions: Mapping[str, str] = {}
        self.notes += notes.unfinished(meta, is_locked=is_locked(path))
        looked = notes.looked_in_part(meta)
        self.looked_in_part = "; ".join(looked)
        self.sampling = notes.sampling(meta, looked)
        self.notes += notes.of_recordings(meta)
        self.notes += notes.failed(meta)
        self.notes += notes.refused(meta)
        self.notes += self.sampling
        self.connection = connect()
        for table in TABLES:
            self._create_view(table)
        self.notes += self.damage[:_MOST_DAMAGE]
        if (more := len(self.damage) - _MOST_DAMAGE) > 0:
            self.notes.append(f"{more:,} more parts cannot be read")

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Opens a trace.

        Raises:
            TraceError: It is missing, not a sltrace trace, damaged, or from a newer version.
        """
        path = Path(path)
        meta = read_meta(path)
        if why := unreadable_name(path.absolute()):
            shown = os.fsencode(path).decode(errors="replace")
            raise TraceError(f"the name of {shown} {why}", "rename it, or its folder")
        return cls(path, meta)

    def narrow(self, conditions: Mapping[str, str]) -> None:
        """Has only the rows of some tables that meet a condition, in SQL; of each table one."""
        self._conditions = conditions
        for table in conditions:
            self._view(table, *self._listed[table])

    def sources(self, name: str) -> list[dict[str, Any]]:
        """What its recorder says of what it looked into, as `go`; of a merged trace every one."""
        return notes.called(self.meta, name)

    def sql(self, query: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Runs a query over the views; values go in as parameters, never as text."""
        import duckdb

        try:
            found = self.connection.execute(query, list(parameters)).to_arrow_table()
        except duckdb.Error as err:
            if not self._follow():
                raise self._unreadable(err) from err
        else:
            # Segments that took the place of others have the same names, and other rows.
            if not self._follow():
                return found
        return self.sql(query, parameters)

    @contextmanager
    def registered(self, *tables: tuple[str, pa.Table]) -> Iterator[None]:
        """Tables that queries may use by these names, for as long as the block runs."""
        with ExitStack() as cleanup:
            for name, table in tables:
                self.connection.register(name, table)
                cleanup.callback(self.connection.unregister, name)
            yield

    @contextmanager
    def stored(self, name: str, query: str) -> Iterator[None]:
        """The result of a query as a table, for as long as the block runs.

        Raises:
            TraceError: The trace is damaged, or there is no room.
        """
        self.sql(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
        try:
            yield
        finally:
            self.connection.execute(f"DROP TABLE {name}")

    def damaged(self, why: str) -> TraceError:
        """The error to raise for content that no recorder writes."""
        return TraceError(f"{self.path} is damaged: {why}", RERECORD)

    def _unreadable(self, err: Exception) -> TraceError:
        import duckdb

        if isinstance(err, duckdb.OutOfMemoryException):
            return TraceError(
                f"there is not enough memory and disk to read {self.path}",
                "name a folder with more room in TMPDIR, or record for a shorter time",
            )
        return self.damaged(_first_line(err))

    def batches(self, query: str, rows: int) -> Iterator[pa.RecordBatch]:
        """The result of a query, piece by piece of at most about `rows`, in constant memory."""
        import duckdb
        import pyarrow as pa

        self._follow()
        begun, failure = False, None
        try:
            for batch in self.connection.sql(query).to_arrow_reader(rows):
                begun = True
                yield batch
        except (duckdb.Error, pa.ArrowException) as err:
            failure = err
        if self._follow():
            if begun:
                why = f"{self.path} was still being written, and changed while it was read"
                raise TraceError(why, "try again") from failure
            yield from self.batches(query, rows)
        elif failure:
            raise self._unreadable(failure) from failure

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One whole table, or some of its columns."""
        known = [c.name for c in TABLES[name]]
        if unknown := set(columns or ()) - set(known):
            raise ValueError(f"{name} has no column {', '.join(sorted(unknown))}")
        return self.sql(f"SELECT {', '.join(map(_quoted, columns or known))} FROM {name}")

    def _create_view(self, table: str) -> None:
        import duckdb

        self.damage[:] = [d for d in self.damage if not d.startswith(f"{table}/")]
        known = len(self.damage)
        self._folders[table] = self._folder(table)
        segments, columns = self._sound_segments(table)
        try:
            self._view(table, segments, columns)
        except duckdb.Error:
            # Its footer is sound for one reader and not for the other: find out whose.
            segments = [s for s in segments if self._can_bind(table, s, columns)]
            self._view(table, segments, columns)
        if self._folder(table) != self._folders[table]:
            # Other segments took the place of those that were listed: none of them is damaged.
            self._create_view(table)
            return
        self._listed[table] = segments, columns
        if table == "waits" and not segments and len(self.damage) > known:
            raise self.damaged(f"none of its waits can be read, as {self.damage[known]}")
        if missing := self._missing(table):
            self.damage.append(f"{table}/ lacks {counted(missing, 'segment')}: a copy in part?")

    def _folder(self, table: str) -> tuple[int, int] | None:
        """Which folder a table's is: a recorder that ends puts another in its place (compact)."""
        try:
            found = (self.path / table).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _follow(self) -> bool:
        """Whether other segments took the place of those that were listed; then lists them.

        Raises:
            TraceError: The trace is gone.
        """
        moved = [t for t, folder in self._folders.items() if self._folder(t) != folder]
        if moved:
            read_meta(self.path)
        for table in moved:
            self._create_view(table)
        return bool(moved)

    def _view(self, table: str, segments: Sequence[Path], columns: set[str]) -> None:
        fields = ", ".join(
            _quoted(c.name)
            if segments and c.name in columns
            else f"NULL::{_SQL_TYPES[c.type]} AS {_quoted(c.name)}"
            for c in TABLES[table]
        )
        source = "WHERE false"
        if segments:
            source = f"FROM {rows_of(segments)}"
            if required := _REQUIRED.get(table):
                source += f" WHERE {' AND '.join(f'{name} IS NOT NULL' for name in required)}"
        query = f"SELECT {fields} {source}"
        if condition := self._conditions.get(table):
            query = f"SELECT * FROM ({query}) WHERE {condition}"
        self.connection.execute(f"CREATE OR REPLACE VIEW {table} AS {query}")

    def _can_bind(self, table: str, segment: Path, columns: set[str]) -> bool:
        import duckdb

        try:
            self._view(table, [segment], columns)
        except duckdb.Error as err:
            self.damage.append(f"{table}/{segment.name} is damaged: {_first_line(err)}")
            return False
        return True

    def _missing(self, table: str) -> int:
        """How many segments of a table are not there, of those that its recorder had written."""
        counts = self.meta.get("segments")
        count = counts.get(table) if isinstance(counts, dict) else None
        if not isinstance(count, int) or not self.meta.get("finished"):
            return 0
        return max(count - len([*(self.path / table).glob("*.parquet")]), 0)

    def _sound_segments(self, table: str) -> tuple[list[Path], set[str]]:
        """Segments whose footer can be read and fits the schema, and the columns they share."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = arrow_schema(table)
        sound: list[Path] = []
        columns: set[str] | None = None
        # Not as given: `web:1.slt` would be the address of something, `~web.slt` somebody's home.
        for segment in sorted((self.path.absolute() / table).glob("*.parquet")):
            if not segment.is_file():
                # To open a pipe would wait for whoever writes to it.
                self.damage.append(f"{table}/{segment.name} is no file")
                continue
            try:
                with open(segment, "rb") as file:
                    schema = pq.read_schema(file)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
                self.damage.append(f"{table}/{segment.name} is damaged: {_first_line(err)}")
                continue
            shared = set(schema.names) & set(wanted.names)
            strange = [n for n in shared if schema.field(n).type != wanted.field(n).type]
            if strange or not shared or not shared.issuperset(_REQUIRED.get(table, ())):
                self.damage.append(f"{table}/{segment.name} does not have the columns of a trace")
                continue
            sound.append(segment)
            columns = shared if columns is None else columns & shared
        return sound, columns or set()


_SQL_TYPES = {
    "int64": "BIGINT",
    "int32": "INTEGER",
    "int16": "SMALLINT",
    "int8": "TINYINT",
    "uint64": "UBIGINT",
    "double": "DOUBLE",
    "uint16": "USMALLINT",
    "uint8": "UTINYINT",
    "bool": "BOOLEAN",
    "dict": "VARCHAR",
    "string": "VARCHAR",
    "list<uint64>": "UBIGINT[]",
    "binary": "BLOB",
}

_REQUIRED = {
    "waits": ("end_ns", "wait_ns", "kind"),
    "missed": ("end_ns", "low_ns", "high_ns"),
    "histograms": ("bucket",),
    "counters": ("start_ns", "end_ns", "cpu", "name", "class", "value"),
}
"""Columns without which a segment, or a row, means nothing."""


def _quoted(name: str) -> str:
    return f'"{name}"'


def _first_line(err: BaseException) -> str:
    text = str(err).strip()
    return text.splitlines()[0][:200].rstrip(".") if text else type(err).__name__
