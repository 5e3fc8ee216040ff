"""One trace id: every wait of its threads and goroutines, and what its time went to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.selection import EVERYTHING, Selection, tables
from sltrace.analysis.timelost import lost_sql
from sltrace.analysis.whose import BECAUSE, LANE, LANE_KEY
from sltrace.errors import UsageError
from sltrace.model import BLOCKED_KINDS, RUNQ_KINDS, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

CAUSES = {
    "stw": (Kind.STW.label,),
    "gil": (Kind.GIL.label,),
    "goroutine": (Kind.GOROUTINE.label,),
    "quota": (Kind.THROTTLED.label,),
    "runq": RUNQ_KINDS,
    "blocked": BLOCKED_KINDS,
}
"""What time can go to besides running, and its kinds. Where waits overlap (a thread that waits for
the GIL is blocked, too), the moment is the first's. An iteration of an event loop is no wait of
the trace it works for, so it is not here."""

_CAUSE_OF = {kind: cause for cause, kinds in CAUSES.items() for kind in kinds}
MAX_WAITS = 100_000
"""Waits of one trace that are looked at, the earliest."""


@dataclass(frozen=True)
class Traced:
    """One trace id, summed up.

    Attributes:
        trace_id: 32 hex digits.
        start_ns: When its first wait began, from the start of the recording.
        end_ns: When its last one ended.
        waits: How many.
        threads: Threads that waited.
        lanes: Goroutines, asyncio tasks and threads that waited.
        lost_ns: Their time in waits of LOST_KINDS, that of threads added up.
        blocked_ns: Their time in waits of BLOCKED_KINDS.
    """

    trace_id: str
    start_ns: int
    end_ns: int
    waits: int
    threads: int
    lanes: int
    lost_ns: int
    blocked_ns: int


@dataclass(frozen=True)
class Slowest:
    """Traces by time lost.

    Attributes:
        traces: Most time lost first.
        count: Traces there are.
        untraced: Waits without a trace id.
        losses: What the recording may lack of them.
        notes: What must be said beside these numbers.
    """

    traces: tuple[Traced, ...]
    count: int
    untraced: int
    losses: Losses
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        return asdict(self) | {"losses": self.losses.to_json(), "notes": list(self.notes)}


@dataclass(frozen=True)
class Wait:
    """One wait; times from the start of the recording, in ns. None where unknown.

    Attributes:
        lane: What waited: a goroutine, an asyncio task or a thread.
        because: Who had what was waited for, or who ended the wait, in words.
    """

    start_ns: int
    end_ns: int
    kind: str
    pid: int
    tid: int
    comm: str
    cpu: int | None
    goid: int | None
    span_id: str | None
    reason: str | None
    cgroup: str | None
    culprit_tid: int | None
    culprit_comm: str | None
    culprit_cgroup: str | None
    culprit_ns: int | None
    waker_tid: int | None
    waker_comm: str | None
    waker_context: str | None
    waker_goid: int | None
    lane: str
    because: str

    @property
    def cause(self) -> str | None:
        """Key of CAUSES."""
        return _CAUSE_OF.get(self.kind)


@dataclass(frozen=True)
class Timeline:
    """All waits of one trace id.

    Attributes:
        trace_id: 32 hex digits.
        waits: By start.
        beyond: Waits beyond MAX_WAITS that are left out.
        causes: Time by key of CAUSES in which at least one of its waits was under way, each
            moment counted once.
        start_unix_ns: Wall clock at the start of the recording; 0 where unknown.
        losses: What the recording may lack of them.
        notes: What must be said beside these numbers.
    """

    trace_id: str
    waits: tuple[Wait, ...]
    beyond: int
    causes: dict[str, int]
    start_unix_ns: int
    losses: Losses
    notes: tuple[str, ...]

    @property
    def start_ns(self) -> int:
        """When its first wait began."""
        return min(w.start_ns for w in self.waits)

    @property
    def end_ns(self) -> int:
        """When its last one ended."""
        return max(w.end_ns for w in self.waits)

    @property
    def lanes(self) -> tuple[str, ...]:
        """Who waited, in the order of their first waits."""
        return tuple(dict.fromkeys(w.lane for w in self.waits))

    def waits_besides(self, shown: Sequence[Wait]) -> tuple[int, int]:
        """How many waits are not among these, and their time added up."""
        whole = sum(w.end_ns - w.start_ns for w in self.waits)
        return len(self.waits) - len(shown), whole - sum(w.end_ns - w.start_ns for w in shown)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        return asdict(self) | {"losses": self.losses.to_json(), "notes": list(self.notes)}


def normal_id(text: str) -> str:
    """A trace id as the trace has it: 32 lower-case hex digits.

    Raises:
        UsageError: It is none.
    """
    digits = text.strip().lower().replace("-", "").removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits) or not digits.strip("0"):
        raise UsageError(f"{text[:80]!r} is not a trace id", "it is 32 hex digits")
    return digits.zfill(32)


def slowest(trace: Trace, selection: Selection = EVERYTHING, *, limit: int = 20) -> Slowest:
    """Traces by time lost.

    Args:
        trace: Where from.
        selection: Waits to look at.
        limit: Traces to give.

    Raises:
        UsageError: The recording has histograms only.
    """
    _refuse_histograms(trace)
    condition, parameters = selection.where()
    source = f"{tables(selection.dimensions)} WHERE {condition}"
    origin = clock_ns(trace, "start_ns")
    rows = trace.sql(
        "SELECT trace_id, min(end_ns - wait_ns) - ? AS start_ns, max(end_ns) - ? AS end_ns, "
        "count(*) AS waits, count(DISTINCT tid) AS threads, "
        f"count(DISTINCT {LANE_KEY}) AS lanes, "
        f"coalesce({lost_sql(trace)}, 0) AS lost_ns, "
        f"coalesce(sum(wait_ns) FILTER (WHERE kind IN {BLOCKED_KINDS!r}), 0)::BIGINT AS "
        f"blocked_ns, count(*) OVER () AS traces FROM {source} AND trace_id IS NOT NULL "
        "GROUP BY trace_id ORDER BY lost_ns DESC, waits DESC, trace_id LIMIT ?",
        [origin, origin, *parameters, limit],
    ).to_pylist()
    untraced = trace.sql(f"SELECT count(*) AS n FROM {source} AND trace_id IS NULL", parameters)
    count = rows[0]["traces"] if rows else 0
    names = Traced.__dataclass_fields__
    return Slowest(
        tuple(Traced(**{n: row[n] for n in names}) for row in rows),
        count,
        untraced["n"][0].as_py(),
        losses(trace, selection),
        tuple(trace.notes),
    )


def timeline(trace: Trace, trace_id: str) -> Timeline:
    """Everything one trace waited for.

    Args:
        trace: Where from.
        trace_id: As `normal_id` gives it.

    Raises:
        UsageError: The recording does not have it.
    """
    _refuse_histograms(trace)
    made = ("start_ns", "end_ns", "lane", "because")
    fields = [n for n in Wait.__dataclass_fields__ if n not in made]
    origin = clock_ns(trace, "start_ns")
    rows = trace.sql(
        f"SELECT end_ns - wait_ns - ? AS start_ns, end_ns - ? AS end_ns, {', '.join(fields)}, "
        f"{LANE} AS lane, {BECAUSE} AS because, "
        "count(*) OVER () AS whole FROM waits WHERE trace_id = ? "
        "ORDER BY start_ns, end_ns, tid, kind LIMIT ?",
        [origin, origin, trace_id, MAX_WAITS],
    ).to_pylist()
    if not rows:
        raise UsageError(
            f"no wait of trace {trace_id} was recorded",
            f"sltrace explain {trace.path} lists the traces that it has",
        )
    beyond = rows[0]["whole"] - len(rows)
    waits = tuple(Wait(**{n: row[n] for n in Wait.__dataclass_fields__}) for row in rows)
    start, end = min(w.start_ns for w in waits), max(w.end_ns for w in waits)
    return Timeline(
        trace_id=trace_id,
        waits=waits,
        beyond=beyond,
        causes=time_by_cause(by_cause(waits), [(start, end)]),
        start_unix_ns=clock_ns(trace, "start_unix_ns"),
        # Its first wait had not ended when it began, and its last one ends at the end.
        losses=losses_within(trace, trace_id, start + 1, end + 1),
        notes=tuple(trace.notes),
    )


def losses_within(trace: Trace, trace_id: str, start_ns: int, end_ns: int) -> Losses:
    """What a recording may lack of a trace between two moments, from the recording's start."""
    origin = clock_ns(trace, "start_ns")
    return losses(
        trace, Selection(origin + start_ns, origin + end_ns, values={"trace_id": (trace_id,)})
    )


def by_cause(waits: Iterable[Wait]) -> NDArray[np.int64]:
    """Begins, ends and causes, by their place in CAUSES, of waits; -1 for none."""
    places = {cause: place for place, cause in enumerate(CAUSES)}
    rows = [(w.start_ns, w.end_ns, places[w.cause] if w.cause else -1) for w in waits]
    return np.array(rows, np.int64).reshape(-1, 3).T


def time_by_cause(waits: NDArray[np.int64], times: Sequence[tuple[int, int]]) -> dict[str, int]:
    """How long of some stretches of time at least one of the waits was under way.

    Every moment counts once, for the first of CAUSES that is under way; the causes that have none
    are in it with 0.

    Args:
        waits: As `by_cause` gives them.
        times: Begin and end of each stretch, in order; none overlap.
    """
    if not times:
        return dict.fromkeys(CAUSES, 0)
    begins = np.maximum(waits[0], times[0][0])
    ends = np.minimum(waits[1], times[-1][1])
    edges = np.unique(np.concatenate([begins, ends, np.ravel(times)]))
    lengths = np.diff(edges)
    free = _under_way(edges, *np.array(times, np.int64).T)
    found = {}
    for place, cause in enumerate(CAUSES):
        of = (waits[2] == place) & (begins < ends)
        under_way = _under_way(edges, begins[of], ends[of]) & free
        free &= ~under_way
        found[cause] = int(lengths[under_way].sum())
    return found


def _under_way(
    edges: NDArray[np.int64], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """For each stretch between two edges, whether one of those that begin and end covers it."""
    change = np.zeros(len(edges), np.int64)
    np.add.at(change, np.searchsorted(edges, begins), 1)
    np.add.at(change, np.searchsorted(edges, ends), -1)
    return np.cumsum(change)[:-1] > 0


def _refuse_histograms(trace: Trace) -> None:
    if trace.meta.get("histogram_only"):
        raise UsageError(
            "this trace has histograms only, which do not know trace ids",
            "record again without --histogram-only",
        )
