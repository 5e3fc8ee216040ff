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

import numpy as np
import pyarrow as pa

from sltrace.analysis.losses import lost_in
from sltrace.analysis.meta import min_latency_ns
from sltrace.model import RUNQ_KINDS, Flag, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sltrace.analysis.losses import LossInterval
    from sltrace.trace.reader import Trace

    _Numbers = NDArray[np.int64]

_UNSURE = int(Flag.CENSORED | Flag.MIGRATED_QUEUED | Flag.CULPRIT_PARTIAL)
_MOST_LOSSES = 1000
"""Intervals with losses on a CPU; with more the trace says too little."""
_LEAST_SHARE = 0.01
"""Share of the waits' time that went to several tasks, from which on their cgroups are told apart:
that takes longer than all else about culprits."""
_MOST_WAITS = 12_000_000
"""For a CPU, with more of which they are not told apart: 10 M take 2 GB and 46 s of CPU time
(measured beside other work)."""
_RAN = "sltrace_cgroup_ran"
_RUNNABLE = (*RUNQ_KINDS, Kind.THROTTLED.label)
_ENDS = ("end_ns", "began_ns")
"""The ends of a wait, the later one first."""
_NUMBERED = "sltrace_cgroup_numbers"
_NUMBERS = (
    "SELECT cgroup, row_number() OVER () AS number FROM (SELECT cgroup FROM waits "
    "UNION SELECT culprit_cgroup FROM waits) WHERE cgroup IS NOT NULL"
)
_NOWHERE = -1
_PLACE = f"coalesce((number << 16) + cpu, {_NOWHERE})"
"""A cgroup on a CPU, as a number."""
_CPU = "coalesce(cpu::INTEGER, -1)"
_NEVER = np.iinfo(np.int64).max


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
        lost = lost_in(trace)
        if not _is_known(trace, lost):
            return cls(None)
        with trace.stored(_NUMBERED, _NUMBERS):
            slices, waits = _Slices.of(trace), _shared(trace, lost)
        place = waits["place"].to_numpy()
        by_its_end, before = (slices.ran_by(place, waits[n].to_numpy()) for n in _ENDS)
        found = waits.append_column("ran", pa.array(by_its_end - before))
        with trace.registered((_RAN, found)):
            return cls(
                trace.sql(
                    f"SELECT tid, kind, end_ns, max(ran) AS ran_ns FROM {_RAN} "
                    "GROUP BY tid, kind, end_ns HAVING ran_ns > min(culprit_ns)"
                )
            )

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


def _is_known(trace: Trace, lost: Sequence[LossInterval]) -> bool:
    """Whether every wait of every thread was recorded, and it is worth to look at them all."""
    meta = trace.meta
    filters = meta.get("filters")
    limited = [v for v in filters.values() if v] if isinstance(filters, dict) else [filters]
    return not (
        limited
        or meta.get("merged")
        or meta.get("blocked") is False
        or min_latency_ns(trace)
        or len(lost) > _MOST_LOSSES
        or not _is_worth_it(trace)
    )


@dataclass(frozen=True)
class _Timeline:
    """Events of several places, by place and time.

    Attributes:
        places: Of each event, ascending.
        times: Its ranks among all times, ascending at each place.
        sorted_ns: All times, ascending.
    """

    places: _Numbers
    times: _Numbers
    sorted_ns: _Numbers

    @classmethod
    def of(cls, places: _Numbers, times_ns: _Numbers) -> _Timeline:
        """Of events that are sorted by place and time."""
        sorted_ns = np.sort(times_ns)
        return cls(places, np.searchsorted(sorted_ns, times_ns, "right"), sorted_ns)

    def latest(self, places: _Numbers, times_ns: _Numbers) -> _Numbers:
        """Index of the last event at each place at a time or before; -1 where there is none."""
        if not len(self.places):
            return np.full(len(places), -1)
        # Place and rank as one number, which fits 2^39 places of _MOST_WAITS.
        width = len(self.sorted_ns) + 1
        wanted = places.astype(np.int64) * width
        wanted += np.searchsorted(self.sorted_ns, times_ns, "right")
        keys = self.places.astype(np.int64) * width + self.times
        # In their order each is found beside the one before: out of it that takes 10 times as long.
        order = np.argsort(wanted)
        found = np.empty_like(order)
        found[order] = np.searchsorted(keys, wanted[order], "right") - 1
        return np.where(self.places[found] == places, found, -1)


@dataclass(frozen=True)
class _Slices:
    """For how long cgroups ran on CPUs, slice by slice, by place and time (ns).

    Attributes:
        begun: Where and when.
        from_ns: When each began.
        to_ns: When it ended.
        before_ns: How long the cgroup had run there in all slices before.
    """

    begun: _Timeline
    from_ns: _Numbers
    to_ns: _Numbers
    before_ns: _Numbers

    @classmethod
    def of(cls, trace: Trace) -> _Slices:
        """From the waits of all threads."""
        cpu, tid, place, in_ns, out_ns = _runs(trace)
        # Until the thread's next wait, if that is known, and never beyond the next switch there.
        to_ns = _following(out_ns, tid)
        order = np.lexsort((tid, in_ns, cpu))
        place, in_ns, to_ns = place[order], in_ns[order], to_ns[order]
        to_ns = np.minimum(to_ns, _following(in_ns, cpu[order]))
        to_ns = np.maximum(in_ns, np.where(to_ns == _NEVER, in_ns, to_ns))
        order = np.argsort(place, kind="stable")
        order = order[place[order] != _NOWHERE]
        place, in_ns, to_ns = place[order], in_ns[order], to_ns[order]
        ran_ns = np.cumsum(to_ns - in_ns)
        first = np.searchsorted(place, place)
        before_ns = ran_ns - (to_ns - in_ns)
        before_ns -= before_ns[first]
        return cls(_Timeline.of(place, in_ns), in_ns, to_ns, before_ns)

    def ran_by(self, places: _Numbers, times_ns: _Numbers) -> _Numbers:
        """What a cgroup had run at a place by a time: all before, and the part of the last one."""
        if not len(self.from_ns):
            return np.zeros(len(places), np.int64)
        last = self.begun.latest(places, times_ns)
        part = np.minimum(times_ns, self.to_ns[last]) - self.from_ns[last]
        return np.where(last < 0, 0, self.before_ns[last] + part)


def _runs(trace: Trace) -> tuple[_Numbers, ...]:
    """Switch-ins by thread and time: CPU, thread, place, when, and when it had left a CPU before.

    It was preempted then, or blocked; _NEVER where that is not known.
    """
    waits = trace.sql(
        f"SELECT {_CPU}, coalesce(tid, -1), {_PLACE}, end_ns, wait_ns, "
        f"(kind = '{Kind.RUNQ_PREEMPT.label}')::TINYINT "
        f"FROM waits LEFT JOIN {_NUMBERED} USING (cgroup) WHERE kind IN {_RUNNABLE!r}"
    )
    cpu, tid, place, in_ns, wait_ns, preempted = (c.to_numpy() for c in waits.columns)
    order = np.lexsort((cpu, in_ns, tid))
    # A wait that was partly quota is two rows, of one switch.
    cpu, tid, in_ns = cpu[order], tid[order], in_ns[order]
    new = [np.diff(column, prepend=~column[:1]) != 0 for column in (cpu, tid, in_ns)]
    first = np.flatnonzero(np.logical_or.reduce(new))
    queued_ns = in_ns[first] - np.add.reduceat(wait_ns[order], first)
    place = np.maximum.reduceat(place[order], first)
    preempted = np.maximum.reduceat(preempted[order], first) > 0
    cpu, tid, in_ns = cpu[first], tid[first], in_ns[first]

    blocked = trace.sql(
        "SELECT tid, end_ns, end_ns - wait_ns FROM waits "
        f"WHERE kind = '{Kind.BLOCKED.label}' AND tid IS NOT NULL"
    )
    who, woken_ns, out_ns = (c.to_numpy() for c in blocked.columns)
    order = np.lexsort((-out_ns, woken_ns, who))
    who, woken_ns, out_ns = who[order], woken_ns[order], np.append(out_ns[order], _NEVER)
    last = _Timeline.of(who, woken_ns).latest(tid, queued_ns)
    out_ns = np.where(np.append(woken_ns, _NEVER)[last] == queued_ns, out_ns[last], _NEVER)
    return cpu, tid, place, in_ns, np.where(preempted, queued_ns, out_ns)


def _following(values: _Numbers, groups: _Numbers) -> _Numbers:
    """Of each row the value of the next one, or _NEVER where that is of another group."""
    found = np.full(len(values), _NEVER)
    same = groups[1:] == groups[:-1]
    found[:-1][same] = values[1:][same]
    return found


def _shared(trace: Trace, lost: Sequence[LossInterval]) -> pa.Table:
    """Waits with several culprits of whose time all switches were seen."""
    waits = trace.sql(
        f"""
        SELECT {_CPU} AS cpu, tid, kind, end_ns,
          end_ns - wait_ns AS began_ns, {_PLACE} AS place, coalesce(culprit_ns, 0) AS culprit_ns
        FROM waits w JOIN {_NUMBERED} n ON n.cgroup = culprit_cgroup
        ANTI JOIN (SELECT tid, end_ns FROM waits
          WHERE kind = '{Kind.THROTTLED.label}') t USING (tid, end_ns)
        WHERE kind IN {RUNQ_KINDS!r} AND culprit_tid > 0 AND culprit_others > 0
          AND flags & {_UNSURE} = 0
        """
    )
    gaps = trace.sql(
        "SELECT cpu, from_ns, max(to_ns) OVER (PARTITION BY cpu ORDER BY from_ns) AS to_ns FROM ("
        "SELECT cpu, end_ns - high_ns AS from_ns, end_ns AS to_ns FROM missed "
        "WHERE cause = 'hole'"
        + "".join(f" UNION ALL SELECT {i.cpu}, {i.start_ns}, {i.end_ns}" for i in lost)
        + ") WHERE cpu IS NOT NULL AND from_ns IS NOT NULL ORDER BY cpu, from_ns"
    )
    if not gaps.num_rows:
        return waits
    cpu, from_ns, to_ns = (gaps[n].to_numpy() for n in ("cpu", "from_ns", "to_ns"))
    last = _Timeline.of(cpu, from_ns).latest(waits["cpu"].to_numpy(), waits["end_ns"].to_numpy())
    seen = (last < 0) | (to_ns[last] < waits["began_ns"].to_numpy())
    return waits.filter(pa.array(seen))


def _is_worth_it(trace: Trace) -> bool:
    """Whether enough of the waits' time went to other tasks than each one's culprit."""
    (row,) = trace.sql(
        "SELECT coalesce(sum(wait_ns - least(culprit_ns, wait_ns)) "
        "FILTER (WHERE culprit_others > 0 AND culprit_tid > 0), 0)::DOUBLE AS others, "
        "coalesce(sum(wait_ns), 0)::DOUBLE AS total, count(*) AS waits "
        f"FROM waits WHERE kind IN {RUNQ_KINDS!r}"
    ).to_pylist()
    return bool(row["waits"] <= _MOST_WAITS and row["others"] > _LEAST_SHARE * row["total"])
