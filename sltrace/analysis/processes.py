"""What processes are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace


def process_names(trace: Trace) -> dict[int, str]:
    """What the main thread of each process was called last."""
    rows = trace.sql(
        "SELECT pid, arg_max(comm, from_ns) AS comm FROM tasks WHERE tid = pid GROUP BY pid"
    )
    return dict(zip(rows.column("pid").to_pylist(), rows.column("comm").to_pylist(), strict=True))
