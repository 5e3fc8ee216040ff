"""The DuckDB connection that traces are read with: what it takes of the machine, and of paths."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

_SHARE = 0.3
"""Of what DuckDB would take, 80 % of the machine's memory or of the cgroup's: traces are read on
hosts that have other work to do."""
_PATTERN = re.compile(r"[*?[]")
_spills: list[weakref.finalize[..., duckdb.DuckDBPyConnection]] = []


def connect() -> duckdb.DuckDBPyConnection:
    """A connection in memory that puts what does not fit into a folder of its own under TMPDIR.

    DuckDB's own choice is `.tmp` in the working directory, which anybody may have made there.
    """
    import duckdb

    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "temp_directory": "",
        }
    )
    row = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    assert row
    number, unit = str(row[0]).split()
    connection.execute(f"SET memory_limit = '{float(number) * _SHARE:.3f}{unit}'")
    # Where no folder can be made, what does not fit in memory cannot be read.
    with contextlib.suppress(OSError):
        folder = Path(tempfile.gettempdir(), f"sltrace-{secrets.token_hex(16)}")
        # What removes it comes first: a signal may end this anywhere.
        _spills.append(weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True))
        folder.mkdir(0o700)
        connection.execute("SET temp_directory = $1", [str(folder)])
    return connection


def rows_of(segments: Iterable[Path]) -> str:
    """SQL for the rows of Parquet files, each of which is only that: a path may have in it what
    DuckDB takes for a pattern, or for the value of a column (`cpu=7/`)."""
    names = (_PATTERN.sub(r"[\g<0>]", str(segment)) for segment in segments)
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"read_parquet([{quoted}], hive_partitioning = false)"


def unreadable_name(path: Path) -> str:
    """Why files in a folder cannot be read with DuckDB; empty where they can."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    # In a pattern it separates folders, and cannot be taken for itself (DuckDB 1.5, measured).
    return "has a backslash beside one of *?[" if "\\" in name and _PATTERN.search(name) else ""


def remove_spills() -> None:
    """Removes what did not fit into memory; for a process that does not end as usual."""
    for spill in _spills:
        spill()
