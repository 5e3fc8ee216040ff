"""One figure of some waits, between the limits that the losses of the trace leave.

What the recorder knows it missed may be anywhere among the waits: a percentile is searched for
with the missing waits at their shortest, and again at their longest. Where they would not change
the figure the two limits are equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sltrace.analysis.histograms import from_histograms, histogram_counts
from sltrace.analysis.keptwaits import counts_by_bucket, lengths
from sltrace.analysis.looked import ended_early, looked_for, not_looked_for
from sltrace.analysis.losses import losses
from sltrace.analysis.meta import machines_of, min_latency_ns, recorded_times
from sltrace.analysis.missing import Missing, missing_waits
from sltrace.analysis.ranks import Ranking, quantiles
from sltrace.analysis.selection import Selection, tables
from sltrace.model import GO_PROBE_KINDS, SCHEDULER, Kind
from sltrace.plural import counted
from sltrace.trace.notes import noted_of_goroutines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sltrace.analysis.ranks import Place
    from sltrace.analysis.rules import Rule
    from sltrace.trace.reader import Trace

_SECOND = 1_000_000_000
_GOROUTINES = frozenset((Kind.GOROUTINE.label, Kind.GOROUTINE_BLOCKED.label))
_OF_A_BUCKET = "known to a histogram bucket"


@dataclass(frozen=True)
class Bounds:
    """A figure that lies between two limits, both included; ns, a number, N/s or a share.

    Attributes:
        low: Not less than this.
        high: Not more than this; None where there is no upper limit.
        why: Why the limits differ or nothing is known; empty where it is exact.
    """

    low: Decimal
    high: Decimal | None
    why: str = ""

    @property
    def exact(self) -> bool:
        """It is known exactly."""
        return self.low == self.high

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "low": _plain(self.low),
            "high": None if self.high is None else _plain(self.high),
            "why": self.why,
        }


def unknown(why: str) -> Bounds:
    """Nothing is known but that it is not negative."""
    return Bounds(Decimal(0), None, why)


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def measure(trace: Trace, rule: Rule) -> Bounds:
    """The figure a rule is about, in the rule's unit."""
    if why := _not_recorded(trace, rule):
        return unknown(why)
    waits = _Waits(trace, rule.selection)
    if not waits.any and rule.where.values and not _matches_any(trace, rule.where):
        return unknown("no wait matches its `where`")
    match rule.figure:
        case "count":
            return waits.count()
        case "total":
            return waits.total()
        case "rate":
            return waits.rate()
        case "mean":
            return waits.mean()
        case "max":
            return waits.longest()
        case "share":
            return waits.share()
    assert rule.quantile is not None
    return waits.percentile(rule.quantile)


def _not_recorded(trace: Trace, rule: Rule) -> str:
    if damaged := len(trace.damage):
        return f"{counted(damaged, 'part')} of the trace cannot be read"
    if _rows_are_gone(trace):
        return "the waits that it counted are not in the trace"
    if Kind.BLOCKED.label in rule.kinds and trace.meta.get("blocked") is False:
        return "recorded with --no-blocked"
    if trace.meta.get("histogram_only"):
        return _beyond_histograms(rule)
    looked = any(looked_for(trace, kind) for kind in rule.kinds)
    if not looked and not _counted(trace, rule.selection):
        return not_looked_for(rule.kinds)
    return ""


def _rows_are_gone(trace: Trace) -> bool:
    """Whether no wait is there of those that the histograms count: a copy that is not whole."""
    if trace.meta.get("histogram_only") or min_latency_ns(trace):
        return False
    if trace.sql("SELECT 1 AS one FROM waits LIMIT 1").num_rows:
        return False
    return losses(trace).kept > 0


def _beyond_histograms(rule: Rule) -> str:
    if not SCHEDULER.issuperset(rule.kinds):
        return "recorded with --histogram-only, which keeps no waits of runtimes"
    strange = [d.name for d in rule.where.dimensions if not d.in_histograms]
    if strange:
        return f"recorded with --histogram-only, which does not tell {', '.join(strange)}"
    if rule.figure == "share":
        return "recorded with --histogram-only, which does not tell when"
    return ""


def _counted(trace: Trace, selection: Selection) -> bool:
    condition, parameters = selection.where()
    source = tables(selection.dimensions)
    found = trace.sql(f"SELECT 1 AS one FROM {source} WHERE {condition} LIMIT 1", parameters)
    return bool(found.num_rows)


def _matches_any(trace: Trace, where: Selection) -> bool:
    if _counted(trace, where):
        return True
    if any(not d.in_histograms for d in where.dimensions):
        return False
    return bool(from_histograms(trace, (), where))


class _Waits:
    """The waits a rule is about, as rows or as buckets of the in-kernel histograms."""

    def __init__(self, trace: Trace, selection: Selection) -> None:
        self._trace = trace
        self._selection = selection
        self._lost = losses(trace, selection)
        self._bucketed = self._use_histograms()
        condition, self._parameters = selection.where()
        self._from = f"FROM {tables(selection.dimensions)} WHERE {condition}"

    def _use_histograms(self) -> bool:
        trace, selection = self._trace, self._selection
        if trace.meta.get("histogram_only"):
            return True
        if not SCHEDULER.issuperset(map(str, selection.kinds or ())):
            return False
        if not all(d.in_histograms for d in selection.dimensions):
            return False
        # They also have the waits that a full ring lost, and those under the minimum latency.
        return bool(self._lost.lost or min_latency_ns(trace)) and self._histograms_have_all()

    def _histograms_have_all(self) -> bool:
        """A recorder that was killed has not written its last second's."""
        groups = from_histograms(self._trace, (), self._selection)
        condition, parameters = self._selection.where()
        rows = self._trace.sql(
            f"SELECT count(*) AS n FROM {tables(self._selection.dimensions)} WHERE {condition}",
            parameters,
        )
        return bool((groups[0].count if groups else 0) >= rows["n"][0].as_py())

    @cached_property
    def _sums(self) -> dict[str, int]:
        if self._bucketed:
            groups = from_histograms(self._trace, (), self._selection)
            n = groups[0].count if groups else 0
            return {"n": n, "total": groups[0].total_ns if groups else 0}
        row: dict[str, int] = self._trace.sql(
            "SELECT count(*) AS n, coalesce(sum(wait_ns), 0)::BIGINT AS total, "
            f"coalesce(max(sampled), 1) AS one_in {self._from}",
            self._parameters,
        ).to_pylist()[0]
        return row

    @cached_property
    def _failed(self) -> str:
        """Why there may be any later ones; empty where all of the recording was looked at."""
        name = ended_early(self._trace, self._selection.kinds or ())
        return f"what records {name} failed before the end" if name else ""

    @property
    def _more(self) -> str:
        """Why how many there were is not known; empty where all became rows."""
        return self._failed or self._sampled

    @property
    def _sampled(self) -> str:
        """The same, where the rows are a sample of all."""
        one_in = self._sums.get("one_in", 1)
        if self._may_have(_GOROUTINES):
            # Where none became a row there may have been some all the same.
            one_in = max(one_in, *noted_of_goroutines(self._trace.meta), 1)
        if one_in > 1:
            return f"one wait in {one_in} became a row"
        return self._trace.looked_in_part if self._may_have(GO_PROBE_KINDS) else ""

    def _may_have(self, kinds: frozenset[str]) -> bool:
        """Whether waits of some kinds may be among them."""
        return not kinds.isdisjoint(self._selection.kinds or kinds)

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """Counts by bucket."""
        if self._bucketed:
            return histogram_counts(self._trace, self._selection)
        (counts,) = counts_by_bucket(self._trace, (), self._selection, [()])
        return counts

    @property
    def any(self) -> bool:
        """The trace has some."""
        return self._sums["n"] > 0

    @cached_property
    def missing(self) -> Missing:
        """What may be missing among them."""
        return missing_waits(self._trace, self._selection, self._lost, in_histograms=self._bucketed)

    # ---- figures -----------------------------------------------------------------------------

    def count(self) -> Bounds:
        """How many."""
        n, missing = self._sums["n"], self.missing
        if self._more:
            return Bounds(Decimal(n), None, self._more)
        low = n + missing.count if missing.certain else n
        return Bounds(Decimal(low), Decimal(n + missing.count), missing.why)

    def total(self) -> Bounds:
        """Their sum, ns."""
        if self._more:
            return Bounds(Decimal(self._sums["total"]), None, self._more)
        return self._noted_total()

    def _noted_total(self) -> Bounds:
        """Of a sample, the sample's."""
        total, missing = self._sums["total"], self.missing
        high = None if missing.high_ns is None else Decimal(total + missing.high_ns)
        return Bounds(Decimal(total + missing.low_ns), high, missing.why)

    def rate(self) -> Bounds:
        """How many a second."""
        wall = self._wall_ns()
        if not wall:
            return unknown("the trace does not say how long it is")
        count = self.count()
        # In this order: what divides evenly is exact.
        high = None if count.high is None else count.high * _SECOND / wall
        return Bounds(count.low * _SECOND / wall, high, count.why)

    def mean(self) -> Bounds:
        """ns; 0 where there are none. Of a sample, the sample's."""
        n, missing = self._sums["n"], self.missing
        most = n + missing.count
        if self._failed or (self._sampled and not most):
            return unknown(self._more)
        total = self._noted_total()
        low = total.low / most if most else Decimal(0)
        if total.high is None:
            return Bounds(low, None, missing.why)
        fewest = most if missing.certain else max(n, 1)
        return Bounds(low, total.high / fewest if most else Decimal(0), missing.why)

    def longest(self) -> Bounds:
        """ns; 0 where there are none."""
        found = self._quantile(Decimal(1))
        return Bounds(found.low, None, self._more) if self._more else found

    def percentile(self, quantile: Decimal) -> Bounds:
        """Nearest rank, ns; 0 where there are none. Of a sample, the sample's."""
        if self._failed:
            return unknown(self._failed)
        if self._sampled and not self._sums["n"] + self.missing.count:
            return unknown(self._sampled)
        return self._quantile(quantile)

    def _quantile(self, quantile: Decimal) -> Bounds:
        ranking = Ranking((), self._counts, self.missing)
        if not ranking.total:
            return Bounds(Decimal(0), Decimal(0))
        ((found,),) = quantiles([ranking], [quantile], self._lengths)
        high = None if found.high_ns is None else Decimal(found.high_ns)
        why = "" if found.exact else self.missing.why or _OF_A_BUCKET
        return Bounds(Decimal(found.low_ns), high, why)

    def _lengths(self, places: Iterable[Place]) -> dict[Place, int]:
        # All that are not in the histograms are rows.
        least_ns = min_latency_ns(self._trace) if self._bucketed else 0
        return lengths(self._trace, (), self._selection, places, least_ns)

    def share(self) -> Bounds:
        """Share of the recording's time in which at least one of them was under way."""
        wall, missing = self._wall_ns(), self.missing
        if not wall:
            return unknown("the trace does not say how long it is")
        # A wait of a merged trace may be of a gap between recordings, too. Waits overlap: each adds
        # what lies beyond all that began before it.
        times = ", ".join(str(part) for part in self._recorded)
        covered = Decimal(
            self._trace.sql(
                "WITH spans AS (SELECT greatest(begin, r.start_ns) AS s, least(stop, r.end_ns) AS "
                f"e FROM (SELECT end_ns - wait_ns AS begin, end_ns AS stop {self._from}) JOIN "
                f"(VALUES {times}) r(start_ns, end_ns) ON begin < r.end_ns AND stop > r.start_ns), "
                "reach AS (SELECT s, e, max(e) OVER (ORDER BY s, e ROWS BETWEEN "
                "UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM spans) SELECT "
                "coalesce(sum(greatest(0, e - greatest(s, coalesce(before, s)))), 0)::BIGINT AS ns "
                "FROM reach",
                self._parameters,
            ).to_pylist()[0]["ns"]
        )
        if min_latency_ns(self._trace):
            return Bounds(covered / wall, Decimal(1), "waits under --min-latency are not known")
        if self._more or missing.high_ns is None or self._lost.lost:
            why = self._more or missing.why or f"{self._lost.lost:,} waits were lost"
            return Bounds(covered / wall, Decimal(1), why)
        return Bounds(
            covered / wall, min(Decimal(1), (covered + missing.high_ns) / wall), missing.why
        )

    @cached_property
    def _recorded(self) -> list[tuple[int, int]]:
        """When the machines that they can be of were recorded."""
        machines = machines_of(self._trace, self._selection.values)
        return recorded_times(self._trace, machines=machines)

    def _wall_ns(self) -> int:
        return sum(end - start for start, end in self._recorded)
