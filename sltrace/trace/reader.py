"""Opens a trace for analysis: DuckDB views over its Parquet segments.

A trace may come from anyone: its metadata is checked, and a segment that is not Parquet with the
columns of the schema is left out and named in `notes`, never guessed at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.errors import TraceError
from sltrace.trace.database import connect
from sltrace.trace.schema import FORMAT, TABLES, VERSION, arrow_schema
from sltrace.trace.writer import META

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_META = 16 << 20
_MAX_WHY = 200
LEFT_OUT = {
    "native_stacks_refused": "times a native stack was left out: there were too many",
    "stacks_refused": "times a stack of Go or Python was left out: there were too many",
    "processes_refused": "child processes of Python were not looked into: there were too many",
    "mapped_files_refused": "mapped files were not looked into: addresses in them have no names",
    "skipped_probe_runs": "runs of a probe were skipped by the kernel, as it was running already",
}
"""Of meta.json, or of a source in it: what was left out, and how often, in words."""
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
        if not meta.get("finished"):
            self.notes.append(
                "it is still being recorded, or the recorder was killed: up to the last second is "
                "missing"
            )
        looked = _looked_in_part(meta)
        self.looked_in_part = "; ".join(looked)
        self.sampling = _sampling(meta, looked)
        self.notes += _failed(meta)
        self.notes += _refused(meta)
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
        meta = _read_meta(path)
        try:
            str(path.absolute()).encode()
        except UnicodeEncodeError:
            shown = os.fsencode(path).decode(errors="replace")
            raise TraceError(
                f"the name of {shown} is not UTF-8", "rename it, or its folder"
            ) from None
        return cls(path, meta)

    def narrow(self, conditions: Mapping[str, str]) -> None:
        """Has only the rows of some tables that meet a condition, in SQL; of each table one."""
        self._conditions = conditions
        for table in conditions:
            self._view(table, *self._listed[table])

    def sources(self, name: str) -> list[dict[str, Any]]:
        """What its recorder says of what it looked into, as `go`; of a merged trace every one."""
        return _called(self.meta, name)

    def sql(self, query: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Runs a query over the views; values go in as parameters, never as text."""
        import duckdb

        try:
            return self.connection.sql(query, params=list(parameters)).to_arrow_table()
        except duckdb.Error as err:
            if not self._follow():
                raise self._unreadable(err) from err
        return self.sql(query, parameters)

    def damaged(self, why: str) -> TraceError:
        """The error to raise for content that no recorder writes."""
        return TraceError(f"{self.path} is damaged: {why}", _RERECORD)

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

        begun = False
        try:
            for batch in self.connection.sql(query).to_arrow_reader(rows):
                begun = True
                yield batch
            return
        except (duckdb.Error, pa.ArrowException) as err:
            if not self._follow():
                raise self._unreadable(err) from err
            if begun:
                why = f"{self.path} was still being written, and changed while it was read"
                raise TraceError(why, "try again") from err
        yield from self.batches(query, rows)

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
            _read_meta(self.path)
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
            names = ", ".join("'" + str(s).replace("'", "''") + "'" for s in segments)
            source = f"FROM read_parquet([{names}])"
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

    def _sound_segments(self, table: str) -> tuple[list[Path], set[str]]:
        """Segments whose footer can be read and fits the schema, and the columns they share."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = arrow_schema(table)
        sound: list[Path] = []
        columns: set[str] | None = None
        # Not as given: `web:1.slt` would be the address of something, `~web.slt` somebody's home.
        for segment in sorted((self.path.absolute() / table).glob("*.parquet")):
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

_REQUIRED = {"waits": ("end_ns", "wait_ns", "kind")}
"""Columns without which a segment, or a row, means nothing."""

_ALL_THE_TIME = 0.999
"""A share of the time from which on it is not worth a note: probes are put in and taken out."""

_GIVE = "give the folder that sltrace record -o NAME wrote"
_RERECORD = "record again, or copy the trace again from where it was recorded"


def _sources(meta: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What recorders say of each thing they looked into, and its name."""
    sources = meta.get("sources")
    found = sources.items() if isinstance(sources, dict) else ()
    return [(name, source) for name, source in found if isinstance(source, dict)]


def _called(meta: dict[str, Any], name: str) -> list[dict[str, Any]]:
    # In a merged trace a source is called `TRACE: NAME`.
    return [source for full, source in _sources(meta) if full.rpartition(": ")[2] == name]


def _looked_in_part(meta: dict[str, Any]) -> list[str]:
    """Of which Go processes the probes were on for a part of the time, in sentences."""
    found = []
    for go in _called(meta, "go"):
        budget, processes = go.get("budget"), go.get("processes")
        if not isinstance(budget, float) or not isinstance(processes, list):
            continue
        for process in processes:
            looked = process.get("looked") if isinstance(process, dict) else None
            if isinstance(looked, float) and 0 <= looked < _ALL_THE_TIME:
                found.append(
                    f"level {process.get('level')} looked at Go process {process.get('pid')} "
                    f"{looked:.1%} of the time, to stay within {100 * budget:.3g}% of its CPU time"
                )
    if (more := len(found) - _MOST_DAMAGE) > 0:
        found[_MOST_DAMAGE:] = [f"{more:,} more Go processes were looked at in part, too"]
    return found


def _failed(meta: dict[str, Any]) -> list[str]:
    """Sources that an error of the recorder's own ended early."""
    found = []
    for name, source in _sources(meta):
        failed = source.get("failed")
        if isinstance(failed, dict):
            ns, why = failed.get("after_ns"), str(failed.get("why"))[:_MAX_WHY]
            after = "a while"
            if isinstance(ns, int) and 0 <= ns < 1 << 63:
                after = f"{ns / 1e9:.1f} s"
            found.append(f"what records {name} failed after {after}, and told no more: {why}")
    return found[:_MOST_DAMAGE]


def _refused(meta: dict[str, Any]) -> list[str]:
    """What was left out."""
    found = []
    for key, words in LEFT_OUT.items():
        counts = [described.get(key) for described in (meta, *(s for _, s in _sources(meta)))]
        count = sum(n for n in counts if isinstance(n, int) and 0 < n < 1 << 63)
        if count:
            found.append(f"{count:,} {words}")
    return found


def _sampling(meta: dict[str, Any], looked: list[str]) -> list[str]:
    """What is not whole because only a part was recorded, `looked` among it, in sentences."""
    sampled, notes = set(), []
    for go in _called(meta, "go"):
        one_in, counters = go.get("sampled"), go.get("counters")
        if isinstance(one_in, int) and 1 < one_in < 1 << 16:
            sampled.add(one_in)
        lost = counters.get("go_ring_full") if isinstance(counters, dict) else None
        if isinstance(lost, int) and lost > 0:
            notes.append(f"{lost:,} waits of goroutines are missing: the recorder was too slow")
        left_out = go.get("left_out")
        if isinstance(left_out, int) and left_out > 0:
            notes.append(f"{left_out:,} more Go processes were not looked into: they were too many")
    return [
        *(
            f"of waits of goroutines the runtime notes 1 in {one_in}: counts and times are of "
            "those, nothing is scaled up"
            for one_in in sorted(sampled)
        ),
        *(f"{part}: waits of goroutines and stopped worlds are of that" for part in looked),
        *notes,
    ]


def _read_meta(path: Path) -> dict[str, Any]:
    file = path / META
    try:
        if file.stat().st_size > _MAX_META:
            raise TraceError(f"{path} is not a trace: its {META} is too large", _RERECORD)
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _no_trace(path) from None
    except OSError as err:
        raise TraceError(f"cannot read {file}: {err.strerror}", "check its permissions") from err
    except (ValueError, RecursionError):
        raise TraceError(f"{path} is damaged: {META} is not JSON", _RERECORD) from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise TraceError(f"{path} is not a trace: {META} is another program's", _RERECORD)
    version = meta.get("version")
    if not (isinstance(version, list) and version and isinstance(version[0], int)):
        raise TraceError(f"{path} is damaged: {META} has no version", _RERECORD)
    if version[0] > VERSION[0]:
        raise TraceError(
            f"{path} has format {version[0]}, this sltrace reads {VERSION[0]}", "upgrade sltrace"
        )
    return meta


def _no_trace(path: Path) -> TraceError:
    """What is at a path instead of a trace, and what to give instead of it."""
    if not path.exists():
        return TraceError(f"{path} does not exist", "record one with: sudo sltrace record -o NAME")
    if path.name in (META, *TABLES) or path.suffix == ".parquet":
        for folder in (path.absolute().parent, path.absolute().parent.parent):
            if (folder / META).is_file():
                return TraceError(f"{path} is only a part of a trace", f"give all of it: {folder}")
    if not path.is_dir():
        what = "an empty file" if path.is_file() and not path.stat().st_size else "a file"
        return TraceError(f"{path} is not a trace but {what}", _GIVE)
    if (path / "waits").is_dir():
        return TraceError(f"{path} is damaged: it has no {META}", _RERECORD)
    if inside := next(iter(sorted(path.glob(f"*/{META}"))), None):
        return TraceError(f"{path} is not a trace", f"it has some: give one, as {inside.parent}")
    return TraceError(f"{path} is not a trace: it has no {META}", _GIVE)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _first_line(err: BaseException) -> str:
    text = str(err).strip()
    return text.splitlines()[0][:200].rstrip(".") if text else type(err).__name__
