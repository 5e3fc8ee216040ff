"""The DuckDB connection that a trace is read with: what it may take of the machine."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

_SHARE = 0.3
"""Of what DuckDB would take, 80 % of the machine's memory or of the cgroup's: traces are read on
hosts that have other work to do."""
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
        folder = tempfile.mkdtemp(prefix="sltrace-")
        _spills.append(weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True))
        connection.execute("SET temp_directory = $1", [folder])
    return connection


def remove_spills() -> None:
    """Removes what did not fit into memory; for a process that does not end as usual."""
    for spill in _spills:
        spill()
