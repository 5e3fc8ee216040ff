"""What the recorder did not see: said beside every number that depends on it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sltrace.analysis.meta import clock_ns
from sltrace.durations import format_duration
from sltrace.model import RUNQ_KINDS
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_COUNTED_AS_MISSED = ("holes", "unstamped")
"""Counters whose waits are rows of `missed`, bounded there, and must not count twice."""

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Counter:
    """One counter, summed over CPUs and time."""

    name: str
    kind: str
    """Class in the trace: loss, discard or info."""
    value: int


@dataclass(frozen=True)
class LossInterval:
    """Waits lost on one CPU in one interval (CLOCK_MONOTONIC ns)."""

    start_ns: int
    end_ns: int
    cpu: int
    name: str
    value: int


@dataclass(frozen=True)
class Missed:
    """Waits that were not seen whole, but whose length is bounded."""

    cause: str
    count: int
    low_ns: int
    """They took at least this long together."""
    high_ns: int
    """And at most this long."""


@dataclass(frozen=True)
class Losses:
    """Everything the trace says about what it lacks.

    Attributes:
        counters: All counters of the trace.
        intervals: Where and when waits were lost without a bound.
        missed: Bounded misses by cause.
        kept: Run-queue waits the trace does have.
        start_ns: When the recording began (CLOCK_MONOTONIC).
        unread: Parts of the trace that cannot be read: what is in them is not known.
    """

    counters: tuple[Counter, ...]
    intervals: tuple[LossInterval, ...]
    missed: tuple[Missed, ...]
    kept: int
    start_ns: int
    unread: int = 0

    @property
    def lost(self) -> int:
        """Waits lost without a trace of how long they were."""
        return sum(i.value for i in self.intervals)

    @property
    def missed_count(self) -> int:
        """Waits known to be missing, of bounded length."""
        return sum(m.count for m in self.missed)

    @property
    def fraction(self) -> float:
        """Share of the run-queue waits that the trace lacks, 0 to 1."""
        gone = self.lost + self.missed_count
        return gone / (gone + self.kept) if gone else 0.0

    def limits(self, quantile: float) -> tuple[float, float | None]:
        """Between which quantiles of the kept waits the true quantile lies.

        The missing waits may all be the shortest or all the longest. None as the upper end: it
        may be longer than any wait that was kept.
        """
        low = max(0.0, (quantile - self.fraction) / (1 - self.fraction)) if self.kept else 0.0
        if quantile > 1 - self.fraction or not self.kept:
            return low, None
        return low, quantile / (1 - self.fraction)

    @property
    def sentence(self) -> str:
        """One line for the terminal."""
        unread = (
            f"{counted(self.unread, 'part')} of the trace cannot be read" if self.unread else ""
        )
        if not self.lost and not self.missed_count:
            return unread or "nothing was lost"
        parts = [unread] if unread else []
        if self.lost:
            parts.append(f"{counted(self.lost, 'wait')} lost {self._where()}")
        if self.missed_count:
            low, high = (sum(getattr(m, e) for m in self.missed) for e in ("low_ns", "high_ns"))
            least = f"{format_duration(low)} to" if low else "at most"
            parts.append(
                f"{counted(self.missed_count, 'wait')} not seen whole, "
                f"{least} {format_duration(high)} together"
            )
        # Two digits of the share: few among many waits are not none.
        digits = max(2, 1 - math.floor(math.log10(100 * self.fraction)))
        tail = f" ({self.fraction:.{digits}%} of all: the percentiles above "
        known = max(0.0, 1 - self.fraction)
        return "; ".join(parts) + tail + f"{known:.{digits}%} have no upper limit)"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "sentence": self.sentence,
            "lost": self.lost,
            "missed": [asdict(m) for m in self.missed],
            "fraction": self.fraction,
            "unread": self.unread,
            "counters": [
                {"name": c.name, "class": c.kind, "value": c.value} for c in self.counters
            ],
            "intervals": [asdict(i) for i in self.intervals],
        }

    def _where(self) -> str:
        cpus = sorted({i.cpu for i in self.intervals})
        start = min(i.start_ns for i in self.intervals) - self.start_ns
        end = max(i.end_ns for i in self.intervals) - self.start_ns
        where = f"on CPU {cpus[0]}" if len(cpus) == 1 else f"on {len(cpus)} CPUs"
        return f"{where} between {start / _SECOND:.1f} s and {end / _SECOND:.1f} s"


def losses(trace: Trace) -> Losses:
    """Reads the counters and missed waits of a trace."""
    counters = trace.sql(
        "SELECT name, class, sum(value)::BIGINT AS value FROM counters "
        "GROUP BY ALL ORDER BY class, name"
    ).to_pylist()
    # holes and unstamped are rows of `missed` as well; where their record was lost too, ring_full
    # counts it.
    intervals = trace.sql(
        "SELECT start_ns, end_ns, cpu, name, sum(value)::BIGINT AS value FROM counters "
        "WHERE class = 'loss' AND value > 0 AND name NOT IN (?, ?) "
        "GROUP BY ALL ORDER BY start_ns, cpu, name",
        _COUNTED_AS_MISSED,
    ).to_pylist()
    missed = trace.sql(
        "SELECT cause, count(*) AS count, sum(low_ns)::BIGINT AS low_ns, "
        "sum(high_ns)::BIGINT AS high_ns FROM missed GROUP BY cause ORDER BY cause"
    ).to_pylist()
    return Losses(
        counters=tuple(Counter(c["name"], c["class"], c["value"]) for c in counters),
        intervals=tuple(LossInterval(**row) for row in intervals),
        missed=tuple(Missed(**row) for row in missed),
        kept=_kept(trace, sum(row["value"] for row in intervals)),
        start_ns=clock_ns(trace, "start_ns"),
        unread=len(trace.damage),
    )


def _kept(trace: Trace, lost: int) -> int:
    kinds = ", ".join("?" * len(RUNQ_KINDS))
    counts = trace.sql(
        f"SELECT (SELECT count(*) FROM waits WHERE kind IN ({kinds})) AS records, "
        "coalesce((SELECT sum(count)::BIGINT FROM histogram_sums "
        f"WHERE kind IN ({kinds})), 0) AS counted",
        [*RUNQ_KINDS, *RUNQ_KINDS],
    ).to_pylist()[0]
    # The histograms also have the waits too short for a record, and those lost after they were
    # counted.
    return int(max(counts["records"], counts["counted"] - lost))
