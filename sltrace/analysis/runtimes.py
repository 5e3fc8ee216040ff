"""What is wrong inside Go and Python processes, among all that is wrong with a service.

The findings, with their thresholds and evidence, are those of `sltrace go` and `sltrace python`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sltrace.analysis.finding import Finding, Name
from sltrace.analysis.meta import clock_ns
from sltrace.model import Kind

if TYPE_CHECKING:
    from sltrace.analysis.golang.finding import Finding as GoFinding
    from sltrace.analysis.python.findings import Finding as PythonFinding
    from sltrace.trace.reader import Trace

_SECOND = 1_000_000_000
_LONGEST = 600
_GOROUTINES = (Kind.GOROUTINE.label,)
_OFF_CPU = (Kind.RUNQ_PREEMPT.label, Kind.THROTTLED.label)
_ALL_OF_GO = "`sltrace go TRACE` has the evidence."
_ALL_OF_PYTHON = "`sltrace python TRACE` has the tables."

_GO: Mapping[Name, tuple[str, tuple[str, ...]]] = {
    Name.GOROUTINE_LEAK: (
        "Give whoever waits there a way out: a context, a deadline, or a channel that is closed.",
        (),
    ),
    Name.P_HOARDING: (
        "Split that computation up, or let it call runtime.Gosched(); a finalizer that takes long "
        "belongs on a goroutine of its own.",
        (),
    ),
    Name.LOST_P: (
        "Set GOMAXPROCS to the CPUs that the process really gets (from 1.25 on it follows the "
        "quota), raise the quota, or keep the other tasks off these CPUs.",
        _OFF_CPU,
    ),
    Name.GOROUTINE_BACKLOG: (
        "Start fewer goroutines at once, with a worker pool or a semaphore, or give the process "
        "more CPUs.",
        _GOROUTINES,
    ),
    Name.NETPOLLER_STARVATION: (
        "Goroutines whose network is ready wait behind others: bound how many compute at once.",
        _GOROUTINES,
    ),
    Name.GC_AMPLIFICATION: (
        "Do without runtime.LockOSThread where it is not needed, and allocate less where it is.",
        _GOROUTINES,
    ),
}
"""Of each finding of `sltrace go`: what to do, and the kinds it is about."""

_PYTHON: Mapping[Name, tuple[str, ...]] = {
    Name.GIL_HOG: (Kind.GIL.label,),
    Name.GIL_CROWD: (Kind.GIL.label,),
    Name.LOOP_BLOCKED: (),
    Name.LOOP_BUSY: (Kind.LOOP.label,),
    Name.LOCK_CONVOY: (),
    Name.PYTHON_GC: (Kind.STW.label,),
}
"""Of each finding of `sltrace python`: the kinds it is about.

Its quota is not among them: that is found by cgroup, of all processes alike.
"""


def go(trace: Trace, wall_ns: int) -> list[Finding]:
    """What the Go processes suffer from; nothing where there are none."""
    if not (looked_into := _processes(trace, "go")):
        return []
    from sltrace.analysis.golang.findings import findings

    origin = clock_ns(trace, "start_ns")
    return _sorted(
        _of_go(f, _name(looked_into, f.pid, f.end_ns + origin), wall_ns) for f in findings(trace)
    )


def python(trace: Trace, wall_ns: int) -> list[Finding]:
    """What the Python processes suffer from; nothing where there are none."""
    if not (looked_into := _processes(trace, "python")):
        return []
    from sltrace.analysis.python.report import python_report

    found = python_report(trace).findings
    return _sorted(
        _of_python(f, _name(looked_into, f.pid), wall_ns) for f in found if f.name in _PYTHON
    )


def _of_go(found: GoFinding, whose: str, wall_ns: int) -> Finding:
    advice, kinds = _GO[found.name]
    numbers = {
        k: v
        for k, v in found.evidence.items()
        if isinstance(v, int | float) and not isinstance(v, bool)
    }
    return Finding(
        name=found.name,
        lost=_lost_ns(found.evidence) / wall_ns,
        sentence=f"{whose}: {found.sentence[:_LONGEST]}.",
        advice=f"{advice} {_ALL_OF_GO}",
        numbers={"pid": found.pid, **numbers},
        values={"pid": (found.pid,), **({"kind": kinds} if kinds else {})},
    )


def _lost_ns(evidence: Mapping[str, Any]) -> float:
    """Time lost because of a Go finding, as far as its evidence tells; a leak loses none."""
    if "by_reason" in evidence:
        return float(sum(w["total"] for w in evidence["by_reason"]))
    if "hold_ns" in evidence:
        return float(evidence["hold_ns"] - evidence["off_cpu_ns"])
    if "stood_still_ns" in evidence:
        return float(evidence["waits"] * evidence["stood_still_ns"])
    return float(evidence.get("throttled_ns", 0) + evidence.get("preempted_ns", 0))


def _of_python(found: PythonFinding, whose: str, wall_ns: int) -> Finding:
    kinds = _PYTHON[found.name]
    # Threads waiting on average, or a share of the recording; of a blocked loop its longest sleep.
    lost = found.value / wall_ns if found.is_time else found.value
    return Finding(
        name=found.name,
        lost=lost,
        sentence=f"{whose}: {found.sentence[:_LONGEST]}.",
        advice=f"{found.advice[0].upper()}{found.advice[1:]}. {_ALL_OF_PYTHON}",
        numbers={"pid": found.pid, "value": found.value, "threshold": found.threshold},
        values={"pid": (found.pid,), **({"kind": kinds} if kinds else {})},
    )


def _processes(trace: Trace, runtime: str) -> dict[int, list[dict[str, Any]]]:
    """Processes of a runtime that were looked into, with each program that they were."""
    rows = trace.sql(
        "SELECT pid, exe, until_ns FROM targets WHERE runtime = ? "
        "ORDER BY pid, from_ns NULLS FIRST, until_ns NULLS LAST",
        [runtime],
    ).to_pylist()
    return {pid: list(each) for pid, each in groupby(rows, itemgetter("pid"))}


def _name(looked_into: Mapping[int, list[dict[str, Any]]], pid: int, ns: int | None = None) -> str:
    """A process as `name (pid)`, by the program that it was at a moment; else by the last."""
    each = looked_into.get(pid, [])
    then = [p for p in each if ns is not None and (p["until_ns"] is None or ns <= p["until_ns"])]
    program = (then or each[-1:] or [{}])[0]
    name = (program.get("exe") or "").rpartition("/")[2][:80]
    return f"{name} ({pid})" if name else f"process {pid}"


def _sorted(found: Iterator[Finding]) -> list[Finding]:
    return sorted(found, key=lambda f: -f.lost)
