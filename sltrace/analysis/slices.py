"""For how long the culprit's whole cgroup ran during each wait, from the waits of all threads.

A record has one culprit, a thread. Where everything was recorded, a thread ran from the end of one
of its waits to the beginning of its next, so the time slices of every CPU are known and those of
one cgroup can be added up. Slices whose end is not known count as nothing: the sum is never more
than what ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sltrace.analysis.losses import lost_in
from sltrace.analysis.meta import min_latency_ns
from sltrace.model import RUNQ_KINDS, Flag, Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from sltrace.trace.reader import Trace

_UNSURE = int(Flag.CENSORED | Flag.MIGRATED_QUEUED | Flag.CULPRIT_PARTIAL)
_MOST_LOSSES = 1000
"""Intervals with losses on a CPU; with more the trace says too little."""
_LEAST_SHARE = 0.01
"""Share of the waits' time that went to several tasks, from which on their cgroups are told apart:
that takes longer than all else about culprits."""
_MOST_WAITS = 12_000_000
"""For a CPU, with more of which they are not told apart: 10 M take 6 GB and 21 s (measured)."""
_RAN = "sltrace_cgroup_ran"


@dataclass(frozen=True)
class CgroupRan:
    """Waits for a CPU during which the culprit's cgroup ran longer than the culprit.

    Attributes:
        rows: Columns tid, kind, end_ns and ran_ns, for how long it ran. None where not everything
            was recorded, so that nobody knows, or where too little time is in question.
    """

    rows: pa.Table | None

    @classmethod
    def of(cls, trace: Trace) -> CgroupRan:
        """Of a whole recording: the slices of a part of its time begin and end outside of it."""
        found = _query(trace)
        return cls(None if found is None else trace.sql(found))

    @contextmanager
    def beside(self, trace: Trace, waits: str) -> Iterator[str]:
        """A FROM item for as long as the block runs: these waits with a column ran_ns, if known.

        Args:
            trace: Of the recording, or of a part of it.
            waits: FROM item with the columns tid, kind and end_ns.
        """
        if self.rows is None:
            yield f"(SELECT *, NULL::BIGINT AS ran_ns FROM {waits})"
            return
        with trace.registered((_RAN, self.rows)):
            yield f"(SELECT w.*, ran_ns FROM {waits} w LEFT JOIN {_RAN} USING (tid, kind, end_ns))"


def _query(trace: Trace) -> str | None:
    meta = trace.meta
    filters = meta.get("filters")
    limited = [v for v in filters.values() if v] if isinstance(filters, dict) else [filters]
    lost = lost_in(trace)
    if (
        limited
        or meta.get("merged")
        or meta.get("blocked") is False
        or min_latency_ns(trace)
        or len(lost) > _MOST_LOSSES
        or not _is_worth_it(trace)
    ):
        return None
    runnable = (*RUNQ_KINDS, Kind.THROTTLED.label)
    gaps = "".join(f" UNION ALL SELECT {i.cpu}, {i.start_ns}, {i.end_ns}" for i in lost)
    # A cgroup on a CPU, as a number: sorted and joined by names it all takes half as long again.
    place = "(number << 16) + cpu"
    # What a cgroup had run on a CPU by a time: its slices before, and the part of the last one.
    at = "coalesce({0}.before + least({1}, {0}.out_ns) - {0}.in_ns, 0)"
    return f"""
        WITH named AS (
          SELECT cgroup, row_number() OVER () AS number FROM (
            SELECT cgroup FROM waits UNION SELECT culprit_cgroup FROM waits
          ) WHERE cgroup IS NOT NULL
        ), switches AS (
          SELECT cpu, tid, end_ns AS in_ns, any_value(cgroup) AS cgroup,
            end_ns - sum(wait_ns)::BIGINT AS queued_ns,
            bool_or(kind = '{Kind.RUNQ_PREEMPT.label}') AS preempted
          FROM waits WHERE kind IN {runnable!r} GROUP BY cpu, tid, end_ns
        ), outs AS (
          SELECT s.*, {place} AS place,
            CASE WHEN preempted THEN queued_ns ELSE b.out_ns END AS out_ns
          FROM switches s LEFT JOIN named USING (cgroup)
          LEFT JOIN (SELECT tid, end_ns, min(end_ns - wait_ns) AS out_ns FROM waits
            WHERE kind = '{Kind.BLOCKED.label}' GROUP BY tid, end_ns) b
            ON b.tid = s.tid AND b.end_ns = s.queued_ns
        ), slices AS (
          SELECT place, in_ns, greatest(in_ns, coalesce(least(
            lead(out_ns) OVER (PARTITION BY tid ORDER BY in_ns, cpu),
            coalesce(lead(in_ns) OVER (PARTITION BY cpu ORDER BY in_ns, tid),
              lead(out_ns) OVER (PARTITION BY tid ORDER BY in_ns, cpu))), in_ns)) AS out_ns
          FROM outs
        ), ahead AS (
          SELECT *, coalesce(sum(out_ns - in_ns) OVER (PARTITION BY place ORDER BY in_ns
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::BIGINT AS before
          FROM slices WHERE place IS NOT NULL
        ), gaps AS (
          SELECT cpu, from_ns, max(to_ns) OVER (PARTITION BY cpu ORDER BY from_ns) AS to_ns FROM (
            SELECT cpu, end_ns - high_ns AS from_ns, end_ns AS to_ns FROM missed
            WHERE cause = 'hole'{gaps})
        ), shared AS (
          SELECT cpu, tid, kind, end_ns, end_ns - wait_ns AS began_ns, {place} AS place,
            coalesce(culprit_ns, 0) AS culprit_ns
          FROM waits w JOIN named ON named.cgroup = culprit_cgroup
          ANTI JOIN (SELECT tid, end_ns FROM waits
            WHERE kind = '{Kind.THROTTLED.label}') t USING (tid, end_ns)
          WHERE kind IN {RUNQ_KINDS!r} AND culprit_tid > 0 AND culprit_others > 0
            AND flags & {_UNSURE} = 0
        ), whole AS (
          SELECT w.* FROM shared w
          ASOF LEFT JOIN gaps g ON g.cpu = w.cpu AND g.from_ns <= w.end_ns
          WHERE g.to_ns IS NULL OR g.to_ns < w.began_ns
        ), ran AS (
          SELECT w.tid, w.kind, w.end_ns,
            max({at.format("e", "w.end_ns")} - {at.format("b", "w.began_ns")}) AS ran_ns
          FROM whole w
          ASOF LEFT JOIN ahead e ON e.place = w.place AND e.in_ns <= w.end_ns
          ASOF LEFT JOIN ahead b ON b.place = w.place AND b.in_ns <= w.began_ns
          GROUP BY w.tid, w.kind, w.end_ns HAVING ran_ns > min(culprit_ns)
        )
        SELECT * FROM ran"""


def _is_worth_it(trace: Trace) -> bool:
    """Whether enough of the waits' time went to other tasks than each one's culprit."""
    (row,) = trace.sql(
        "SELECT coalesce(sum(wait_ns - least(culprit_ns, wait_ns)) "
        "FILTER (WHERE culprit_others > 0 AND culprit_tid > 0), 0)::DOUBLE AS others, "
        "coalesce(sum(wait_ns), 0)::DOUBLE AS total, count(*) AS waits "
        f"FROM waits WHERE kind IN {RUNQ_KINDS!r}"
    ).to_pylist()
    return bool(row["waits"] <= _MOST_WAITS and row["others"] > _LEAST_SHARE * row["total"])
