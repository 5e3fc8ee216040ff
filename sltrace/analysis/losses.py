"""What the recorder did not see: said beside every number that depends on it."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sltrace.analysis.meta import clock_ns, node_of_cpu
from sltrace.analysis.selection import EVERYTHING, Selection, tables
from sltrace.durations import format_duration
from sltrace.model import RUNQ_KINDS, SCHEDULER, Kind
from sltrace.plural import counted, percent_digits
from sltrace.trace.notes import lost_of_goroutines

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_COUNTED_AS_MISSED = ("holes", "unstamped")
"""Counters whose waits are rows of `missed`, bounded there, and must not count twice."""

_OF_PYTHON = "python_waits_lost"
_OF_SCHEDULER = "ring_full"
_KINDS_OF_PYTHON = frozenset(k.label for k in (Kind.GIL, Kind.LOOP, Kind.STW))
"""Counter of the waits that the ring of the Python probes had no room for, and their kinds."""

IN_TIME = {
    "counters": "end_ns > {start} AND start_ns < {end}",
    "missed": "end_ns >= {start} AND end_ns - high_ns < {end}",
    "histogram_sums": "start_ns >= {start} AND end_ns <= {end}",
}
"""Rows that belong to a stretch of CLOCK_MONOTONIC, by table. Losses are of whole intervals: those
that touch it. A wait that was not seen whole may have ended before it was noticed. What is counted
as there is surely within it."""

IN_MISSED = ("comm", "pid", "tid", "cpu")
"""Dimensions that rows of `missed` have too."""

COUNTED_BY = ("cpu", "node")
"""Dimensions by which lost waits can be told apart: they are counted by CPU."""

OF_ONE_WAIT = ("state",)
"""Dimensions in which other waits of a thread say nothing of one that was not seen whole."""

_SECOND = 1_000_000_000
_ALWAYS = (1 << 63) - 1


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
    """Everything the trace says about what it lacks, or what a selection of its waits may lack.

    Attributes:
        counters: All counters; of a selection those of its time and CPUs.
        intervals: Where and when waits were lost without a bound; likewise.
        missed: Bounded misses by cause; of a selection those that may be of it.
        kept: Run-queue waits the trace does have; of a selection its waits.
        start_ns: When the recording began (CLOCK_MONOTONIC).
        unread: Parts of the trace that cannot be read: what is in them is not known.
        of_any: What waits are selected by and `intervals` cannot be: they are of any such.
        selected: It is about a selection.
        beside: Goroutines' waits were lost, which are in none of these figures.
        longest_ns: No wait of `missed` was longer; None where that is not known.
    """

    counters: tuple[Counter, ...]
    intervals: tuple[LossInterval, ...]
    missed: tuple[Missed, ...]
    kept: int
    start_ns: int
    unread: int = 0
    of_any: tuple[str, ...] = ()
    selected: bool = False
    beside: bool = False
    longest_ns: int | None = None

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

    @property
    def sentence(self) -> str:
        """One line for the terminal."""
        unread = (
            f"{counted(self.unread, 'part')} of the trace cannot be read" if self.unread else ""
        )
        if not self.lost and not self.missed_count:
            return unread or self._nothing()
        parts = [unread] if unread else []
        if self.lost:
            any_of = f", of any {_either(self.of_any)}" if self.of_any else ""
            parts.append(f"{counted(self.lost, 'wait')} lost {self._where()}{any_of}")
        if self.missed_count:
            low, high = (sum(getattr(m, e) for m in self.missed) for e in ("low_ns", "high_ns"))
            least, most = format_duration(low), format_duration(high)
            between = most if least == most else f"{least} to {most}" if low else f"at most {most}"
            together = " together" if self.missed_count > 1 else ""
            parts.append(
                f"{counted(self.missed_count, 'wait')} not seen whole, {between}{together}"
            )
        digits = percent_digits(self.fraction)
        share = f"{self.fraction:.{digits}%}"
        share = f"at most {share} of these" if self.selected else f"{share} of all"
        tail = f"{share}: {self._meaning(digits)} have no upper limit"
        if not self.lost and not self.unread and self.longest_ns is not None:
            longest = format_duration(self.longest_ns)
            tail = f"{share}, none over {longest}: {self._meaning(digits)} may be theirs"
        return f"{'; '.join(parts)} ({tail})"

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

    def _meaning(self, digits: int) -> str:
        """Of percentiles, as far as they are those of the waits that are not missing.

        Of rank r among n, a wait is of rank r to r + m with the m that are missing.
        """
        steps = 10**digits
        gone = round(100 * self.fraction * steps, 6)
        off = 100 * steps * gone / (100 * steps - gone) if gone < 50 * steps else 100 * steps
        points, known = math.ceil(round(off, 6)) / steps, math.floor(100 * steps - gone) / steps
        return (
            f"without them percentiles are off by up to {points:.{digits}f} percentage points, "
            f"and those above {known:.{digits}f}%"
        )

    def _nothing(self) -> str:
        if self.beside:
            return f"no wait of a thread was lost{' among these' if self.selected else ''}"
        return "none of these waits was lost" if self.selected else "nothing was lost"

    def _where(self) -> str:
        cpus = sorted({i.cpu for i in self.intervals})
        start = min(i.start_ns for i in self.intervals) - self.start_ns
        end = max(i.end_ns for i in self.intervals) - self.start_ns
        where = f"on CPU {cpus[0]}" if len(cpus) == 1 else f"on {len(cpus)} CPUs"
        return f"{where} between {start / _SECOND:.1f} s and {end / _SECOND:.1f} s"


def _either(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def losses(trace: Trace, selection: Selection = EVERYTHING) -> Losses:
    """Reads the counters and missed waits of a trace.

    Args:
        trace: Where from.
        selection: Waits that are looked at. What was lost is known by time and CPU only: whatever
            else they are selected by, all that was lost then and there may be of them.
    """
    condition, parameters = _counted_at(trace, selection)
    counters = trace.sql(
        "SELECT name, class, sum(value)::BIGINT AS value FROM counters "
        f"WHERE {condition} GROUP BY ALL ORDER BY class, name",
        parameters,
    ).to_pylist()
    intervals = lost_in(trace, selection)
    condition, parameters, _ = missed_among(trace, selection)
    missed = trace.sql(
        "SELECT cause, count(*) AS count, sum(low_ns)::BIGINT AS low_ns, "
        f"sum(high_ns)::BIGINT AS high_ns, max(high_ns) AS longest FROM missed WHERE {condition} "
        "GROUP BY cause ORDER BY cause",
        parameters,
    ).to_pylist()
    # What else one of those threads waited for meanwhile, blocked, may be of any length.
    limited = missed and Kind.BLOCKED.label not in (selection.kinds or ())
    longest = [row.pop("longest") for row in missed]
    return Losses(
        counters=tuple(Counter(c["name"], c["class"], c["value"]) for c in counters),
        intervals=intervals,
        missed=tuple(Missed(**row) for row in missed),
        kept=_kept(trace, selection, sum(i.value for i in intervals)),
        start_ns=clock_ns(trace, "start_ns"),
        unread=len(trace.damage),
        of_any=_not_told_apart(selection),
        selected=selection != EVERYTHING,
        beside=lost_of_goroutines(trace.meta) > 0,
        longest_ns=max(longest) if limited else None,
    )


def lost_in(trace: Trace, selection: Selection = EVERYTHING) -> tuple[LossInterval, ...]:
    """Where and when waits were lost without a bound."""
    condition, parameters = _counted_at(trace, selection)
    if selection.kinds is not None:
        kinds = {str(kind) for kind in selection.kinds}
        condition += "" if may_count(_OF_PYTHON, kinds) else f" AND name <> '{_OF_PYTHON}'"
        condition += "" if may_count(_OF_SCHEDULER, kinds) else f" AND name = '{_OF_PYTHON}'"
    # holes and unstamped are rows of `missed` as well; where their record was lost too, ring_full
    # counts it.
    rows = trace.sql(
        "SELECT start_ns, end_ns, cpu, name, sum(value)::BIGINT AS value FROM counters "
        f"WHERE {condition} AND class = 'loss' AND value > 0 AND name NOT IN (?, ?) "
        "GROUP BY ALL ORDER BY start_ns, cpu, name",
        [*parameters, *_COUNTED_AS_MISSED],
    ).to_pylist()
    return tuple(LossInterval(**row) for row in rows)


def may_count(counter: str, kinds: Set[str]) -> bool:
    """Whether what a counter of lost waits counts may be of some kinds."""
    # All other waits in rings are the scheduler's.
    return bool(kinds & (_KINDS_OF_PYTHON if counter == _OF_PYTHON else SCHEDULER))


def missed_among(trace: Trace, selection: Selection) -> tuple[str, list[object], bool]:
    """Which rows of `missed` may be of a selection, as a condition; whether all of them are."""
    certain = not _has_times(selection)
    apart = ("kind", "node", *OF_ONE_WAIT)
    values = {d: v for d, v in selection.values.items() if d not in apart}
    certain = certain and not selection.values.keys() - values.keys() - {"kind"}
    where = Selection(values=values, bucket=selection.bucket)
    condition, parameters = where.where()
    if where.bucket or any(d.name not in IN_MISSED for d in where.dimensions):
        # A thread that has waits, and none that matches, is not one of them.
        seen = f"SELECT tid FROM {tables(where.dimensions)} WHERE {condition}"
        known = "SELECT tid FROM waits WHERE tid IS NOT NULL"
        condition = f"(tid IN ({seen}) OR tid NOT IN ({known}))"
        certain = False
    on_nodes, others = _on_nodes(trace, selection)
    condition = f"{_in_time('missed', selection)} AND {condition} AND {on_nodes}"
    return condition, [*parameters, *others], certain


def _has_times(selection: Selection) -> bool:
    return selection.start_ns is not None or selection.end_ns is not None


def _in_time(table: str, selection: Selection) -> str:
    if not _has_times(selection):
        return "true"
    end = _ALWAYS if selection.end_ns is None else selection.end_ns
    return IN_TIME[table].format(start=selection.start_ns or 0, end=end)


def _counted_at(trace: Trace, selection: Selection) -> tuple[str, list[object]]:
    """The counters of a selection's time and CPUs, as a condition."""
    cpus = Selection(values={d: v for d, v in selection.values.items() if d == "cpu"})
    condition, parameters = cpus.where()
    on_nodes, others = _on_nodes(trace, selection)
    condition = f"{_in_time('counters', selection)} AND {condition} AND {on_nodes}"
    return condition, [*parameters, *others]


def _on_nodes(trace: Trace, selection: Selection) -> tuple[str, list[int]]:
    """What is of CPUs that may be of a selection's NUMA nodes, as a condition."""
    if "node" not in selection.values:
        return "true", []
    _, wanted = Selection(values={"node": selection.values["node"]}).where()
    # A CPU whose node is not known may be of any.
    others = [cpu for cpu, node in node_of_cpu(trace).items() if node not in wanted]
    return (f"cpu NOT IN ({', '.join('?' * len(others))})" if others else "true"), others


def _not_told_apart(selection: Selection) -> tuple[str, ...]:
    names = [name for name in selection.values if name not in COUNTED_BY]
    if selection.min_wait_ns is not None or selection.max_wait_ns is not None:
        names.append("length")
    if selection.bucket:
        names.append("bucket")
    return tuple(names)


def _kept(trace: Trace, selection: Selection, lost: int) -> int:
    of_kinds = selection.with_kinds(RUNQ_KINDS)
    condition, parameters = of_kinds.where()
    kept: int = trace.sql(
        f"SELECT count(*) AS n FROM {tables(of_kinds.dimensions)} WHERE {condition}", parameters
    )["n"][0].as_py()
    # The histograms also have the waits too short for a record, and those lost after they were
    # counted.
    if not _in_histograms(selection):
        return kept
    values = Selection(values=of_kinds.values)
    condition, parameters = values.where()
    counted_too: int = trace.sql(
        "SELECT coalesce(sum(count), 0)::BIGINT AS n "
        f"FROM {tables(values.dimensions, 'histogram_sums')} "
        f"WHERE {_in_time('histogram_sums', selection)} AND {condition}",
        parameters,
    )["n"][0].as_py()
    return max(kept, counted_too - lost)


def _in_histograms(selection: Selection) -> bool:
    """Whether the histograms tell these waits from others."""
    singles = (selection.min_wait_ns, selection.max_wait_ns, selection.bucket)
    return singles == (None,) * 3 and all(d.in_histograms for d in selection.dimensions)
