"""Which of the waits that a trace lacks may be among those that were asked for, or a group of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.losses import (
    COUNTED_BY,
    IN_MISSED,
    OF_ONE_WAIT,
    Losses,
    may_count,
    missed_among,
)
from sltrace.analysis.meta import min_latency_ns, node_of_cpu
from sltrace.analysis.selection import CLASS, Dimension, Selection, Value, tables
from sltrace.model import GO_PROBE_KINDS, RUNQ, RUNQ_KINDS, SCHEDULER, Kind
from sltrace.trace.notes import lost_of_goroutines, unread_of_goroutines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

_AT_ONCE = (
    frozenset(RUNQ_KINDS),
    frozenset((Kind.THROTTLED.label,)),
    frozenset((Kind.BLOCKED.label,)),
)
"""Kinds of which one switch-in ends a wait each; of those together one."""

_ANY = object()
"""Stands for a thread or node that is not known."""


@dataclass(frozen=True)
class Missing:
    """Waits that the trace lacks and that may be among those asked for.

    Attributes:
        count: How many, at most; at least, too, where `certain`.
        low_ns: They took at least this long together.
        high_ns: At most this long; None where that is not known.
        longest_ns: The longest of them is at most this long; None where that is not known.
        certain: They are among those asked for, all of them rows of `missed`.
        lows_ns: How long each took at least, in order; empty unless `certain`.
        highs_ns: And at most, likewise.
    """

    count: int
    low_ns: int
    high_ns: int | None
    longest_ns: int | None
    certain: bool
    lows_ns: NDArray[np.int64]
    highs_ns: NDArray[np.int64]

    @property
    def why(self) -> str:
        """For people; empty where nothing is missing."""
        if not self.count:
            return ""
        verb = "wait is" if self.count == 1 else "waits are"
        return f"{self.count:,} {verb} missing" + ("" if self.certain else " and may be of these")


_NONE = np.empty(0, np.int64)
NOTHING = Missing(0, 0, 0, 0, False, _NONE, _NONE)


def missing_waits(
    trace: Trace, selection: Selection, lost: Losses, *, in_histograms: bool
) -> Missing:
    """What the figures of a selection lack; as `MissingWaits`."""
    return MissingWaits(trace, (), selection, lost, in_histograms=in_histograms).of(())


class MissingWaits:
    """What the figures of a selection's groups lack.

    Args:
        trace: Where from.
        by: The groups' dimensions, or CLASS.
        selection: The waits asked for; names kinds unless `by` does.
        lost: What they may lack.
        in_histograms: The figures are from the histograms, which also have the waits that a full
            ring lost and those under the minimum latency.
    """

    def __init__(
        self,
        trace: Trace,
        by: Sequence[Dimension],
        selection: Selection,
        lost: Losses,
        *,
        in_histograms: bool,
    ) -> None:
        self._by = tuple(d.name for d in by)
        self._selection = selection
        apart = {"kind", "node", CLASS.name, *OF_ONE_WAIT}
        self._own = [d for d in by if d.name in IN_MISSED]
        self._threads = [d for d in by if d.name not in {*IN_MISSED, *apart}]
        self._nodes = node_of_cpu(trace) if "node" in self._by else {}
        self._lost = self._counted(lost, in_histograms)
        # They are counted in meta.json, whoever waited and whenever.
        self._of_goroutines = lost_of_goroutines(trace.meta) + unread_of_goroutines(trace.meta)
        self._nameless = self._beyond_the_table(trace, by) if in_histograms else 0
        self._minimum = min_latency_ns(trace)
        self._hidden = _hidden(trace, selection, lost) if self._minimum and not in_histograms else 0
        singles = (selection.min_wait_ns, selection.max_wait_ns)
        self._certain = (
            not self._threads
            and not {"node", *OF_ONE_WAIT} & set(self._by)
            and singles == (None, None)
        )
        self._missed: dict[tuple[object, ...], list[tuple[int, int]]] = defaultdict(list)
        self._threads_of: dict[tuple[Value, ...], list[object]] = defaultdict(list)
        if lost.missed:
            self._read_missed(trace)

    @property
    def any(self) -> bool:
        """There are some, in a group or other."""
        rest = self._of_goroutines, self._nameless, self._hidden
        return bool(self._lost or self._missed or any(rest))

    def of(self, keys: tuple[Value, ...]) -> Missing:
        """What a group lacks."""
        named = dict(zip(self._by, keys, strict=True))
        kinds = self._kinds(named)
        endless = self._lost_of(named, kinds)
        if kinds & GO_PROBE_KINDS:
            endless += self._of_goroutines
        if not kinds & SCHEDULER:
            limit = None if endless else 0
            return Missing(endless, 0, limit, limit, False, _NONE, _NONE)
        endless += self._nameless
        bounds = self._missed_of(named)
        count = len(bounds) + endless + self._hidden
        # The minimum is on the run-queue wait; what went with it may be of any length.
        limited = not endless and not (self._hidden and not kinds <= set(RUNQ_KINDS))
        limited = limited and not (count and Kind.BLOCKED.label in kinds)
        shortest = self._minimum if self._hidden else 0
        # Under which kind a missed wait would have been is not known.
        certain = self._certain and kinds == set(RUNQ_KINDS) and 0 < count == len(bounds)
        lows, highs = np.sort(np.array(bounds, np.int64).reshape(-1, 2), axis=0).T
        longest = max(int(highs.max(initial=0)), shortest)
        return Missing(
            count=count,
            low_ns=int(lows.sum()) if certain else 0,
            high_ns=int(highs.sum()) + self._hidden * shortest if limited else None,
            longest_ns=longest if limited else None,
            certain=certain,
            lows_ns=lows if certain else _NONE,
            highs_ns=highs if certain else _NONE,
        )

    def _kinds(self, named: dict[str, Value]) -> set[str]:
        if "kind" in named:
            return {str(named["kind"])}
        chosen = set(map(str, self._selection.kinds or RUNQ_KINDS))
        if CLASS.name not in named:
            return chosen
        if named[CLASS.name] == RUNQ:
            return chosen & set(RUNQ_KINDS) if self._selection.kinds else set(RUNQ_KINDS)
        return {str(named[CLASS.name])}

    # ---- without a bound ---------------------------------------------------------------------

    def _counted(self, lost: Losses, in_histograms: bool) -> Counter[tuple[str, int]]:
        """Waits whose length is not known at all, by what they are counted as and CPU."""
        found: Counter[tuple[str, int]] = Counter()
        for interval in lost.intervals:
            if not (in_histograms and interval.name == "ring_full"):
                found[interval.name, interval.cpu] += interval.value
        return found

    def _lost_of(self, named: dict[str, Value], kinds: set[str]) -> int:
        return sum(
            count
            for (name, cpu), count in self._lost.items()
            if may_count(name, kinds)
            and named.get("cpu", cpu) == cpu
            and self._nodes.get(cpu, named.get("node")) == named.get("node")
        )

    def _beyond_the_table(self, trace: Trace, by: Sequence[Dimension]) -> int:
        """Waits of cgroups beyond the probe's table, counted under -1 whichever they are."""
        told = ("kind", "policy", CLASS.name)
        if all(d.name in told for d in (*by, *self._selection.dimensions)):
            return 0
        return int(
            trace.sql(
                "SELECT coalesce(sum(count), 0)::BIGINT AS n "
                "FROM histogram_sums WHERE cgroup_id = -1"
            )["n"][0].as_py()
        )

    # ---- of bounded length -------------------------------------------------------------------

    def _read_missed(self, trace: Trace) -> None:
        condition, parameters, certain = missed_among(trace, self._selection)
        self._certain = self._certain and certain
        shortest, longest = self._selection.min_wait_ns, self._selection.max_wait_ns
        for end, limit in (("high_ns >= ?", shortest), ("low_ns < ?", longest)):
            if limit is not None:
                condition, parameters = f"{condition} AND {end}", [*parameters, limit]
        own = "".join(f", {d.sql}" for d in self._own)
        rows = trace.sql(
            f"SELECT low_ns, high_ns, tid AS thread, cpu AS at_cpu{own} "
            f"FROM missed WHERE {condition}",
            parameters,
        )
        known: set[Value] = set()
        if self._threads and rows.num_rows:
            known = self._read_threads(trace)
        columns = (rows.column(i).to_pylist() for i in range(rows.num_columns))
        for low, high, tid, cpu, *values in zip(*columns, strict=True):
            node = self._nodes.get(cpu, _ANY) if "node" in self._by else None
            thread = (tid if tid in known else _ANY) if self._threads else None
            self._missed[(*values, node, thread)].append((low, high))

    def _read_threads(self, trace: Trace) -> set[Value]:
        """Which groups the threads with missed waits have waits in; those that have any."""
        keys = ", ".join(f"{d.sql} AS k{i}" for i, d in enumerate(self._threads))
        rows = trace.sql(
            f"SELECT DISTINCT tid AS thread, {keys} FROM {tables(self._threads)} "
            "WHERE tid IN (SELECT tid FROM missed)"
        )
        tids, *values = (rows.column(i).to_pylist() for i in range(rows.num_columns))
        for tid, *key in zip(tids, *values, strict=True):
            self._threads_of[tuple(key)].append(tid)
        return set(tids)

    def _missed_of(self, named: dict[str, Value]) -> list[tuple[int, int]]:
        """The bounds of each that may be of a group."""
        own = [named[d.name] for d in self._own]
        nodes = [named["node"], _ANY] if "node" in named else [None]
        threads: list[object] = [None]
        if self._threads:
            threads = [*self._threads_of.get(tuple(named[d.name] for d in self._threads), ()), _ANY]
        keys = ((*own, node, thread) for node in nodes for thread in threads)
        return [bounds for key in keys for bounds in self._missed.get(key, ())]


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
