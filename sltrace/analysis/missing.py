"""Which of the waits that a trace lacks may be among those that were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sltrace.analysis.losses import COUNTED_BY, Losses, missed_among
from sltrace.analysis.meta import min_latency_ns
from sltrace.analysis.selection import Selection, tables
from sltrace.model import GO_PROBE_KINDS, RUNQ_KINDS, SCHEDULER, Kind
from sltrace.trace.notes import lost_of_goroutines, unread_of_goroutines

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_AT_ONCE = (
    frozenset(RUNQ_KINDS),
    frozenset((Kind.THROTTLED.label,)),
    frozenset((Kind.BLOCKED.label,)),
)
"""Kinds of which one switch-in ends a wait each; of those together one."""


@dataclass(frozen=True)
class Missing:
    """Waits that the trace lacks and that may be among those asked for.

    Attributes:
        count: How many, at most; at least, too, where `certain`.
        low_ns: They took at least this long together.
        high_ns: At most this long; None where that is not known.
        longest_ns: The longest of them is at most this long; None where that is not known.
        certain: They are among those asked for, all of them rows of `missed`.
        condition: Over `missed`, its rows that may be among them.
        parameters: Of the condition.
    """

    count: int
    low_ns: int
    high_ns: int | None
    longest_ns: int | None
    certain: bool
    condition: str
    parameters: tuple[object, ...]

    @property
    def why(self) -> str:
        """For people; empty where nothing is missing."""
        if not self.count:
            return ""
        verb = "wait is" if self.count == 1 else "waits are"
        return f"{self.count:,} {verb} missing" + ("" if self.certain else " and may be of these")


def missing_waits(
    trace: Trace, selection: Selection, lost: Losses, *, in_histograms: bool
) -> Missing:
    """What the figures of a selection lack.

    Args:
        trace: Where from.
        selection: The waits asked for; names kinds.
        lost: What they may lack.
        in_histograms: The figures are from the histograms, which also have the waits that a full
            ring lost and those under the minimum latency.
    """
    kinds = set(selection.kinds or ())
    endless = _lost(trace, selection, lost, in_histograms)
    if kinds & GO_PROBE_KINDS:
        # They are counted in meta.json, whoever waited and whenever.
        endless += lost_of_goroutines(trace.meta) + unread_of_goroutines(trace.meta)
    if not kinds & SCHEDULER:
        limit = None if endless else 0
        return Missing(endless, 0, limit, limit, False, "false", ())
    minimum = min_latency_ns(trace)
    hidden = 0 if in_histograms or not minimum else _hidden(trace, selection, lost)
    condition, parameters, certain = missed_among(trace, selection)
    row = trace.sql(
        "SELECT count(*) AS n, coalesce(sum(low_ns), 0)::BIGINT AS low, "
        "coalesce(sum(high_ns), 0)::BIGINT AS high, coalesce(max(high_ns), 0) AS longest "
        f"FROM missed WHERE {condition}",
        parameters,
    ).to_pylist()[0]
    count = row["n"] + endless + hidden
    # The minimum is on the run-queue wait; what went with it may be of any length.
    limited = not endless and not (hidden and not kinds <= set(RUNQ_KINDS))
    limited = limited and not (count and Kind.BLOCKED.label in kinds)
    shortest = minimum if hidden else 0
    # Under which kind a missed wait would have been is not known.
    certain = certain and kinds == set(RUNQ_KINDS) and not endless and not hidden and count > 0
    return Missing(
        count=count,
        low_ns=row["low"] if certain else 0,
        high_ns=row["high"] + hidden * shortest if limited else None,
        longest_ns=max(row["longest"], shortest) if limited else None,
        certain=certain,
        condition=condition,
        parameters=tuple(parameters),
    )


def _hidden(trace: Trace, selection: Selection, lost: Losses) -> int:
    """Waits under the minimum latency that may be among them, at most.

    A record that is kept for a long sleep has no row for the short wait for a CPU after it: of
    each kind of wait a switch-in has one at most.
    """
    switch_ins = sum(c.value for c in lost.counters if c.name in ("below_min", "records"))
    at_once = [kinds for kinds in _AT_ONCE if kinds & set(selection.kinds or ())]
    known = Selection(
        start_ns=selection.start_ns,
        end_ns=selection.end_ns,
        values={
            **{d: v for d, v in selection.values.items() if d in COUNTED_BY},
            "kind": tuple(frozenset().union(*at_once)),
        },
    )
    condition, parameters = known.where()
    rows = trace.sql(
        f"SELECT count(*) AS n FROM {tables(known.dimensions)} WHERE {condition}", parameters
    ).to_pylist()[0]["n"]
    return max(switch_ins * len(at_once) - int(rows), 0)


def _lost(trace: Trace, selection: Selection, lost: Losses, in_histograms: bool) -> int:
    """Waits that may be among them and whose length is not known at all."""
    if not in_histograms:
        return lost.lost
    gone = sum(i.value for i in lost.intervals if i.name != "ring_full")
    if any(d.name not in ("kind", "policy") for d in selection.dimensions):
        # Cgroups beyond the probe's table are counted under -1, whichever they are.
        gone += trace.sql(
            "SELECT coalesce(sum(count), 0)::BIGINT AS n FROM histogram_sums WHERE cgroup_id = -1"
        ).to_pylist()[0]["n"]
    return gone
