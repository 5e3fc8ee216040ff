"""Writes a trace so that it can be read at any moment, also after `kill -9` of the writer.

A segment is written beside its final name and then renamed, so a reader sees whole files only.
Nothing is ever rewritten but `meta.json` and the table `targets`, which are replaced by rename as
well. While something is recorded the files are written aside (sltrace.trace.disk).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.environment import while_loading
from sltrace.errors import OutputError
from sltrace.trace.folder import TraceFolder, is_locked
from sltrace.trace.schema import FORMAT, TABLES, VERSION, arrow_schema
from sltrace.trace.segment import Segment

if TYPE_CHECKING:
    import pyarrow as pa

META = "meta.json"


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
        self.folder = TraceFolder(path)
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
        try:
            return cls(path, meta)
        except OutputError as err:
            # Without its meta.json nothing could be read, nor replaced with --force.
            shutil.rmtree(path, ignore_errors=True)
            raise OutputError(err.message, "free some space, or choose another -o") from err

    def append(self, table: str, data: pa.Table) -> None:
        """Adds rows as one segment: columns in any order, nullable ones may be left out.

        Raises:
            OutputError: The disk is full or the folder is gone. Earlier segments stay readable.
        """
        if data.num_rows:
            segment = self.segment(table)
            segment.add(data)
            segment.close()

    def replace(self, table: str, data: pa.Table) -> None:
        """Puts rows in the place of all that were written of a table, in one step.

        Raises:
            OutputError: As `append`.
        """
        segment = self._segment(table, 0)
        segment.add(data)
        segment.close()

    def segment(self, table: str, *, filled: frozenset[str] = frozenset()) -> Segment:
        """Starts a segment that is added to piece by piece and appears when it is closed.

        Args:
            table: Which table.
            filled: Columns that are never null.
        """
        return self._segment(table, self._segments[table], filled)

    def _segment(self, table: str, number: int, filled: frozenset[str] = frozenset()) -> Segment:
        folder = self.path / table
        if not self._segments[table]:
            self.folder.disk.do(partial(self.folder.make, folder))
        self._segments[table] = max(self._segments[table], number + 1)
        target = self._target(table, number)
        return Segment(self.folder, table, target, arrow_schema(table, filled=filled))

    def segments(self, table: str) -> Iterator[Path]:
        """Those that are there of a table, in order; a reader of a live trace may remove some."""
        targets = (self._target(table, number) for number in range(self._segments[table]))
        return (target for target in targets if target.exists())

    def _target(self, table: str, number: int) -> Path:
        return self.path / table / f"{number:06d}.parquet"

    def aside(self) -> AbstractContextManager[None]:
        """Within, what is added is written on a thread of its own; at the end all is written.

        Raises:
            OutputError: As `append`.
        """
        return self.folder.disk.aside()

    def update_meta(self, **fields: Any) -> None:
        """Replaces keys of meta.json on disk."""
        self._meta.update(fields)
        self._write_meta()

    def close(self) -> None:
        """Marks the trace as finished, and says of how many segments it is."""
        counts = {t: len([*(self.path / t).glob("*.parquet")]) for t in self._segments}
        self.update_meta(finished=True, segments={t: n for t, n in counts.items() if n})
        self.folder.close()

    def cut_short(self) -> None:
        """Nothing more could be written: says so, in the room of what was being written."""
        self._meta["cut_short"] = self.folder.failure
        with contextlib.suppress(OSError):
            self.folder.clear()
            self.folder.replace(self.path / META, self._meta_text())
        self.folder.close()

    def _write_meta(self) -> None:
        text = self._meta_text()
        self.folder.disk.do(partial(self.folder.replace, self.path / META, text), len(text))
        if not self._meta["finished"]:
            # It grows: with CPUs, processes and what sources say of them.
            self.folder.disk.do(partial(self.folder.reserve, 2 * len(text)))

    def _meta_text(self) -> bytes:
        # For people only in the end: with an indent it takes 4 times as long (measured).
        text = json.dumps(self._meta, indent=1 if self._meta["finished"] else None) + "\n"
        return text.encode()


_FOR_ARROW = {
    # Its allocator is kept from a thread of its own, which would keep all privileges of now.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # Of the three there are it keeps least to itself: 144 MB resident at 100,000 waits/s, 151 where
    # only pa.set_memory_pool says so, which the Parquet writer does not hear of (measured).
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def warm_up() -> None:
    """Imports what writing needs before something is recorded that it would delay."""
    with while_loading(_FOR_ARROW):
        import pyarrow as pa
        import pyarrow.parquet

        # What is imported for the first array (0.25 s of CPU, measured, with all there can be).
        pa.array([])


def refuse_existing(path: Path, *, force: bool) -> None:
    """Checks that a trace may be written to `path`; changes nothing.

    Raises:
        OutputError: Something is there, and `force` is not given, or it is not a trace or still
            being written.
    """
    if not (path.is_symlink() or path.exists()):
        return
    if not force:
        raise OutputError(f"{path} exists already", "give --force to replace it, or another -o")
    try:
        text = (path / META).read_text(encoding="utf-8") if (path / META).is_file() else "{}"
        ours = json.loads(text).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    if path.is_symlink() or not ours:
        raise OutputError(f"{path} exists and is not a trace", "--force replaces traces only")
    if is_locked(path):
        raise OutputError(
            f"{path} is being written by another sltrace", "let that end, or choose another -o"
        )


def _remove_trace(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as err:
        raise OutputError(f"cannot remove {path}: {err.strerror}", "choose another -o") from err
