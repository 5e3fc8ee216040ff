"""Takes a trace apart while it is being written, and keeps the last minutes of it in sums.

Segments appear under their names when they are whole, about two a second. Each is read once,
summed into a table in memory and removed, so neither disk nor memory grow with time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.analysis.cells import bucket_sql
from sltrace.analysis.histograms import bucket_quantile
from sltrace.analysis.ranges import QUANTILES, Range
from sltrace.buckets import N_BUCKETS
from sltrace.model import RUNQ_KINDS
from sltrace.trace.database import rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_S = 300
"""Seconds that are kept."""
_LONGEST_PAUSE_S = 3600
MAX_ROWS = 2_000_000
"""Sums that are kept, 280 MB (measured): on a machine of many threads they are of fewer
seconds than that."""
_SECOND = 1_000_000_000
_UNREAD_NS = 500_000_000
"""A wait is read, to be written, at the latest this long after its end: as a rule within 0.1 s;
0.25 s did not suffice with 400 threads that wanted 2 CPUs."""
_LATE_S = 5
"""From which delay on the recorder is late: usually a second is shown up to 4 s after it began."""
_P99 = dict(QUANTILES)["p99"]

CLASSES = ("runq", "throttled", "blocked")
"""What can be looked at: run-queue latency, or one kind."""

VIEWS = {"cgroups": "cgroup", "threads": "thread", "culprits": "culprit"}
"""What the lines are, and the column of the table in memory."""

SORTS = ("waited", "waits", "p99", "max")


@dataclass(frozen=True)
class Line:
    """What one cgroup, thread or culprit is about; times in ns, per second of the window."""

    name: str
    waited: float
    waits: float
    p99: Range
    longest: int
    because: str | None
    """Who ran most meanwhile; of a culprit, who waited most."""


@dataclass(frozen=True)
class Losses:
    """Run-queue waits lost or not seen whole.

    Attributes:
        total: How many so far.
        fraction: Their share of all there were, 0 to 1.
        seconds: When.
    """

    total: int
    fraction: float
    seconds: frozenset[int]


class Feed:
    """The last minutes of a trace that is being written.

    Args:
        path: The trace.
    """

    def __init__(self, path: Path) -> None:
        import duckdb

        self._path = path
        self._db = duckdb.connect()
        self._db.execute(
            "CREATE TABLE live (s BIGINT, class VARCHAR, cgroup VARCHAR, thread VARCHAR, "
            "culprit VARCHAR, bucket INTEGER, n BIGINT, ns BIGINT, longest BIGINT, held BIGINT)"
        )
        self._db.execute("CREATE TABLE heat (s BIGINT, class VARCHAR, bucket INTEGER, n BIGINT)")
        self._lines_from_s = 0
        self._lost: dict[int, int] = {}
        self._lost_before = self._seen = 0
        self.first_s = 0
        """The second before the first whole one of the recording; 0 before it has begun."""
        self.last_s = 0
        """The latest second of the picture: the latest of which the trace has everything."""
        self.late_s = 0
        """How long ago that was, where the recorder is late; else 0."""

    @property
    def meta(self) -> dict[str, Any]:
        """The trace's description; empty while there is none."""
        try:
            meta = json.loads((self._path / "meta.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return meta if isinstance(meta, dict) else {}

    def take(self, *, advance: bool = True) -> None:
        """Reads the segments that have appeared.

        Args:
            advance: Move the picture on to the latest second that is known whole.
        """
        # Before the segments: what it says is written is in those.
        known = self._known_s()
        segments = sorted(self._path.glob("*/*.parquet"))
        for segment in segments:
            match segment.parent.name:
                case "waits":
                    self._take_waits(segment)
                case "counters":
                    self._take_losses(segment)
            segment.unlink()
        behind = time.monotonic_ns() // _SECOND - known
        self.late_s = behind if self.first_s and behind > _LATE_S else 0
        if advance:
            self.last_s = known
        # What a picture that stands still shows is kept for a while, too.
        before_s = max(min(known, self.last_s), known - _LONGEST_PAUSE_S) - KEPT_S
        if segments:
            self._forget(before_s)
        for second in [s for s in self._lost if s < before_s]:
            self._lost_before += self._lost.pop(second)

    def _take_waits(self, segment: Path) -> None:
        kinds = f"CASE WHEN kind IN {RUNQ_KINDS!r} THEN 'runq' ELSE kind END"
        culprit = (
            "CASE WHEN culprit_tid = 0 THEN 'idle CPU' WHEN culprit_tid IS NOT NULL "
            "THEN culprit_comm || ' ' || culprit_pid END"
        )
        self._db.execute(
            f"INSERT INTO live SELECT end_ns // {_SECOND}, {kinds}, coalesce(cgroup, '?'), "
            f"coalesce(comm, '?') || ' ' || tid, {culprit}, {bucket_sql('wait_ns')}, count(*), "
            "sum(wait_ns), max(wait_ns), coalesce(sum(least(culprit_ns, wait_ns)), 0) "
            f"FROM {rows_of([segment])} GROUP BY ALL"
        )
        self._db.execute(
            f"INSERT INTO heat SELECT end_ns // {_SECOND}, {kinds}, {bucket_sql('wait_ns')}, "
            f"count(*) FROM {rows_of([segment])} GROUP BY ALL"
        )

    def _forget(self, before_s: int) -> None:
        """Drops what is old, and the oldest of what is too much."""
        self._db.execute("DELETE FROM heat WHERE s < ?", [before_s])
        rows = self._db.execute(
            "SELECT s, sum(count(*)) OVER (ORDER BY s DESC) FROM live GROUP BY s ORDER BY s DESC"
        ).fetchall()
        too_many = [s for s, so_far in rows if so_far > MAX_ROWS]
        if too_many:
            before_s = max(before_s, too_many[0] + 1)
            self._lines_from_s = before_s
        self._db.execute("DELETE FROM live WHERE s < ?", [before_s])

    def _take_losses(self, segment: Path) -> None:
        rows = self._db.execute(
            f"SELECT end_ns // {_SECOND}, coalesce(sum(value) FILTER (class = 'loss'), 0)::BIGINT, "
            "coalesce(sum(value) FILTER (name = 'records'), 0)::BIGINT "
            f"FROM {rows_of([segment])} GROUP BY 1"
        ).fetchall()
        for second, lost, seen in rows:
            self._seen += seen
            if lost:
                self._lost[second] = self._lost.get(second, 0) + lost

    def _known_s(self) -> int:
        """The latest second of which everything is written; 0 before the recording has begun."""
        clock = self.meta.get("clock") or {}
        if "end_ns" not in clock:
            return 0
        self.first_s = clock["start_ns"] // _SECOND
        return int(clock["end_ns"] - _UNREAD_NS) // _SECOND - 1

    @property
    def losses(self) -> Losses:
        """What the recorder lost, as far as it is known yet."""
        total = self._lost_before + sum(self._lost.values())
        return Losses(total, total / max(total + self._seen, 1), frozenset(self._lost))

    def known(self, window: int) -> int:
        """How many of the last `window` seconds are known, at least 1."""
        first = max(self.first_s, self._lines_from_s - 1)
        return max(1, min(window, self.last_s - first))

    def heat(self, of: str, seconds: int) -> NDArray[np.int64]:
        """Waits by latency bucket and second, the latest second last; (N_BUCKETS, seconds)."""
        cells = np.zeros((N_BUCKETS, seconds), np.int64)
        start = self.last_s - seconds
        rows = self._db.execute(
            "SELECT bucket, s - ? - 1, sum(n)::BIGINT FROM heat WHERE class = ? AND s > ? "
            "AND s <= ? GROUP BY ALL",
            [start, of, start, self.last_s],
        ).fetchall()
        for bucket, column, count in rows:
            cells[bucket, column] = count
        return cells

    def lines(
        self, of: str, view: str, window: int, *, sort: str, wanted: str, limit: int
    ) -> list[Line]:
        """The worst of the last seconds.

        Args:
            of: One of CLASSES.
            view: A key of VIEWS.
            window: Seconds.
            sort: One of SORTS.
            wanted: Only names with this in them, whatever the case.
            limit: How many.
        """
        window = self.known(window)
        column, since = VIEWS[view], self.last_s - window
        other = "cgroup" if column == "culprit" else "culprit"
        time_of = "held" if column == "culprit" else "ns"
        rows = self._db.execute(
            f"SELECT {column}, sum({time_of})::BIGINT AS waited, sum(n)::BIGINT AS waits, "
            "max(longest) AS longest FROM live "
            f"WHERE class = ? AND s > ? AND s <= ? AND {column} IS NOT NULL "
            f"AND contains(lower({column}), ?) GROUP BY {column} ORDER BY "
            f"{sort if sort in ('waited', 'waits') else 'longest'} DESC, {column} LIMIT ?",
            # A percentile takes counting; the ones to sort by it are chosen by the longest wait,
            # which it is below.
            [of, since, self.last_s, wanted.lower(), limit * (10 if sort == "p99" else 1)],
        ).fetchall()
        names = [row[0] for row in rows]
        p99 = self._p99(of, column, since, names)
        because = self._because(of, column, other, since, names)
        lines = [
            Line(name, waited / window, n / window, p99[name], longest, because.get(name))
            for name, waited, n, longest in rows
        ]
        if sort == "p99":
            lines.sort(key=lambda line: -line.p99.low_ns)
        return lines[:limit]

    def _p99(self, of: str, column: str, since: int, names: Sequence[str]) -> dict[str, Range]:
        counts = {name: np.zeros(N_BUCKETS, np.int64) for name in names}
        rows = self._db.execute(
            f"SELECT {column}, bucket, sum(n)::BIGINT FROM live WHERE class = ? AND s > ? "
            f"AND s <= ? AND {column} IN (SELECT unnest(?::VARCHAR[])) GROUP BY ALL",
            [of, since, self.last_s, list(names)],
        ).fetchall()
        for name, bucket, count in rows:
            counts[name][bucket] = count
        return {name: bucket_quantile(c, _P99) for name, c in counts.items()}

    def _because(
        self, of: str, column: str, other: str, since: int, names: Sequence[str]
    ) -> dict[str, str]:
        rows = self._db.execute(
            f"SELECT {column}, arg_max(x, held) FROM (SELECT {column}, {other} AS x, "
            f"sum(held) AS held FROM live WHERE class = ? AND s > ? AND s <= ? AND {column} IN "
            f"(SELECT unnest(?::VARCHAR[])) AND {other} IS NOT NULL GROUP BY ALL) "
            f"GROUP BY {column}",
            [of, since, self.last_s, list(names)],
        ).fetchall()
        return dict(rows)
