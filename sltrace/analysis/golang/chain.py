"""Who blocked whom: goroutines, why they were parked, and who made them go on.

From recordings at level 2 or 3. At 2 they are of the stops that the runtime tracks, one in eight:
multiply by `sampled` for an estimate of all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sltrace.analysis.golang.health import refused
from sltrace.analysis.golang.programs import number_at, programs
from sltrace.analysis.golang.reasons import Reason, explain
from sltrace.analysis.golang.sites import UNKNOWN, Site, sites
from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import clock_ns, natural
from sltrace.analysis.selection import Selection
from sltrace.errors import UsageError
from sltrace.model import Kind

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

NOBODY = "network, timer or runtime"
NOT_RECORDED = "-"
_MAX_STEPS = 10_000
_KINDS = (Kind.GOROUTINE.label, Kind.GOROUTINE_BLOCKED.label)
_MAX_NAMED = 5
_PARKS = 2
"""The level from which on it is recorded how long goroutines were parked, and who woke them."""


@dataclass(frozen=True)
class Link:
    """One kind of waiting for one kind of waker, summed.

    Attributes:
        where: Function the waiting goroutines were parked in; `started` is their first.
        started: Likewise.
        reason: The runtime's word for it.
        why: What that means.
        waker: Function that made them go on; NOBODY where it was no goroutine, NOT_RECORDED where
            they were not parked or that was not recorded.
        waker_started: First function of the waking goroutine.
        count: Waits, of those sampled.
        blocked_ns: How long they were parked.
        runq_ns: How long they then waited for a P.
    """

    where: str
    started: str
    reason: str
    why: Reason
    waker: str
    waker_started: str
    count: int
    blocked_ns: int
    runq_ns: int


@dataclass(frozen=True)
class Step:
    """One wait of a path: as in Link, with its times from the start of the recording.

    Attributes:
        nth: Which of the programs that its process was, one after the other, 1 for the first;
            None where it was one. Each numbers its goroutines anew.
    """

    start_ns: int
    end_ns: int
    kind: str
    pid: int
    nth: int | None
    goid: int
    where: str
    reason: str
    why: Reason
    waker_goid: int | None
    waker: str
    trace_id: str | None


@dataclass(frozen=True)
class Chain:
    """Attributes: links, most time first; steps in order; they are of one wait in `sampled`.

    The steps are the first of `steps_total`.
    """

    links: tuple[Link, ...]
    steps: tuple[Step, ...]
    steps_total: int
    sampled: int | None
    losses: Losses
    notes: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether its path is of several programs, which number their goroutines alike."""
        return len({(step.pid, step.nth) for step in self.steps}) > 1

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; all times in ns."""
        return {
            "links": [asdict(link) for link in self.links],
            "steps": [asdict(step) for step in self.steps],
            "steps_total": self.steps_total,
            "sampled": self.sampled,
            "losses": self.losses.to_json(),
            "notes": list(self.notes),
        }


def chain(
    trace: Trace, trace_id: str | None = None, goid: int | None = None, pid: int | None = None
) -> Chain:
    """Links over the whole recording, or of one trace id, goroutine or process.

    With a trace id or a goroutine also its path.

    Raises:
        UsageError: The trace has no goroutine waits, or none that match; or the goroutine is one
            of several processes.
    """
    asked = {"trace_id": trace_id, "goid": goid, "pid": pid}
    chosen = {name: (value,) for name, value in asked.items() if value is not None}
    selection = Selection(values={"kind": _KINDS, **chosen})
    condition, parameters = selection.where()
    rows = trace.sql(
        "SELECT stack_runtime AS stack, waker_stack_runtime AS waker, reason, "
        "waker_goid IS NOT NULL AS has_waker, "
        "count(*) FILTER (WHERE kind = 'goroutine') AS n, "
        "coalesce(sum(wait_ns) FILTER (WHERE kind = 'goroutine_blocked'), 0)::BIGINT AS blocked, "
        "coalesce(sum(wait_ns) FILTER (WHERE kind = 'goroutine'), 0)::BIGINT AS runq, "
        "count(*) AS waits, max(sampled) AS sampled "
        f"FROM waits WHERE {condition} GROUP BY ALL",
        parameters,
    ).to_pylist()
    if not rows:
        if chosen and trace.sql(f"SELECT 1 FROM waits WHERE kind IN {_KINDS!r} LIMIT 1").num_rows:
            raise UsageError(
                "no goroutine waits match", "leave --goid, --trace-id and --pid out to see all"
            )
        why = refused(trace)
        raise UsageError(
            "; ".join(["this trace has no goroutine waits", *why]),
            "record a Go process with --pid PID --go-level 2",
        )
    if goid is not None:
        _check_one_process(trace, condition, parameters, goid)
    named = sites(trace, [r[k] for r in rows for k in ("stack", "waker")])
    summed: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        site = named.get(row["stack"] or 0, UNKNOWN)
        waker = named.get(row["waker"] or 0, UNKNOWN)
        nobody = (NOBODY, NOBODY) if row["blocked"] else (NOT_RECORDED, NOT_RECORDED)
        by = (waker.where, waker.started) if row["has_waker"] else nobody
        key = (site.where, site.started, row["reason"] or "", *by)
        totals = summed.setdefault(key, [0, 0, 0])
        for i, name in enumerate(("n", "blocked", "runq")):
            totals[i] += row[name]
    links = [
        Link(where, started, reason, explain(reason), waker, waker_started, *totals)
        for (where, started, reason, waker, waker_started), totals in summed.items()
    ]
    links.sort(key=lambda link: (-link.blocked_ns - link.runq_ns, link.where, link.reason))
    has_path = trace_id is not None or goid is not None
    steps = _steps(trace, condition, parameters) if has_path else []
    return Chain(
        tuple(links),
        tuple(steps),
        sum(row["waits"] for row in rows) if has_path else 0,
        max((row["sampled"] for row in rows if row["sampled"] is not None), default=None),
        losses(trace, selection),
        _notes(trace, links),
    )


def _check_one_process(trace: Trace, condition: str, parameters: list[object], goid: int) -> None:
    """Each process counts its goroutines by itself."""
    pids = trace.sql(f"SELECT DISTINCT pid FROM waits WHERE {condition} ORDER BY pid", parameters)
    if pids.num_rows > 1:
        named = ", ".join(str(pid) for pid in pids["pid"].to_pylist()[:_MAX_NAMED])
        raise UsageError(
            f"{pids.num_rows} processes have a goroutine {goid}: {named}"
            + (", ..." if pids.num_rows > _MAX_NAMED else ""),
            "say which with --pid PID",
        )


def _steps(trace: Trace, condition: str, parameters: list[object]) -> list[Step]:
    origin = clock_ns(trace, "start_ns")
    rows = trace.sql(
        "SELECT end_ns - wait_ns AS begin, end_ns AS finish, kind, pid, goid, "
        "stack_runtime AS stack, reason, waker_goid, waker_stack_runtime AS waker, trace_id "
        f"FROM waits WHERE {condition} ORDER BY end_ns LIMIT {_MAX_STEPS}",
        parameters,
    ).to_pylist()
    named = sites(trace, [r[k] for r in rows for k in ("stack", "waker")])
    several = programs(trace)
    return [
        Step(
            start_ns=row["begin"] - origin,
            end_ns=row["finish"] - origin,
            kind=row["kind"],
            pid=row["pid"] or 0,
            nth=number_at(several[row["pid"]], row["finish"]) if row["pid"] in several else None,
            goid=row["goid"] or 0,
            where=named.get(row["stack"] or 0, UNKNOWN).where,
            reason=row["reason"] or "",
            why=explain(row["reason"]),
            waker_goid=row["waker_goid"],
            waker=_waker(row, named),
            trace_id=row["trace_id"],
        )
        for row in rows
    ]


def _waker(row: dict[str, Any], named: dict[int, Site]) -> str:
    if row["waker_goid"]:
        return named.get(row["waker"] or 0, UNKNOWN).where
    return NOBODY if row["kind"] == "goroutine_blocked" else NOT_RECORDED


def _notes(trace: Trace, links: list[Link]) -> tuple[str, ...]:
    if any(link.blocked_ns for link in links) or _recorded_parks(trace):
        return tuple(trace.notes)
    return (*trace.notes, f"who woke whom is not in this trace: {_why_no_parks(trace)}")


def _recorded_parks(trace: Trace) -> bool:
    query = "SELECT 1 FROM targets WHERE runtime = 'go' AND level >= ? LIMIT 1"
    return bool(trace.sql(query, [_PARKS]).num_rows)


def _why_no_parks(trace: Trace) -> str:
    """Because it was not asked for, or was not to be had."""
    if all(natural(go.get("level_asked_for")) < _PARKS for go in trace.sources("go")):
        return f"record with --go-level {_PARKS}"
    rows = trace.sql(
        "SELECT pid, level, why FROM targets WHERE runtime = 'go' AND level IS NOT NULL "
        "ORDER BY level DESC, pid LIMIT 1"
    ).to_pylist()
    return "".join(f"{r['pid']} was at level {r['level']} only: {r['why']}" for r in rows)
