"""Rows of `targets`: what became of each process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sltrace.capture.python.target import Target
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ENDED = 1 << 16
"""Rows of processes that have ended: 7 MB, which take 25 ms each time they are written anew."""


class Told:
    """Of processes that have ended their rows are kept, and nothing else.

    Attributes:
        refused: Those that have no row, as there were too many.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._ended: list[pa.Table] = []

    def rows(
        self, ended: Iterable[Target], there: Iterable[Target], until_ns: int
    ) -> list[pa.Table]:
        """Of all processes so far.

        Args:
            ended: Those that have ended since the last call.
            there: Those that have not.
            until_ns: When the recording ended; later than all, as long as it has not.
        """
        import pyarrow as pa

        fresh = _table(ended, until_ns)
        if fresh.num_rows:
            found = pa.concat_tables([*self._ended, fresh])
            self.refused += max(found.num_rows - MAX_ENDED, 0)
            self._ended = [found.slice(0, MAX_ENDED).combine_chunks()]
        return [*self._ended, _table(there, until_ns)]


def _table(found: Iterable[Target], until_ns: int) -> pa.Table:
    import pyarrow as pa

    rows = [_row(target, until_ns) for target in found]
    return pa.Table.from_pylist(rows, schema=arrow_schema("targets"))


def _row(target: Target, until_ns: int) -> dict[str, Any]:
    found = target.python
    return {
        "pid": target.pid,
        "runtime": "python",
        "version": found.version if found else "",
        "exe": found.exe if found else "",
        "build_id": found.build_id if found else "",
        "level": target.level,
        "why": target.why or target.trouble,
        # The writing thread may be looking at it while the recording ends.
        "from_ns": min(target.told_from_ns, until_ns),
        "until_ns": target.until_ns,
    }
