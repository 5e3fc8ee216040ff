"""Fields of a trace's metadata that analysis computes with, whatever the file says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sltrace.durations import format_duration
from sltrace.model import PID_SPACE, POLICIES
from sltrace.trace.clock import Clock, furthest_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sltrace.trace.reader import Trace

_MAX_CPUS = 1 << 16
_OFFSETS = {"pid": "pid_offset", "tid": "pid_offset", "cpu": "cpu_offset", "node": "node_offset"}
"""Of a merged trace what each machine's numbers begin at, by dimension."""
_OF_FILTERS = {
    "pids": "process (and its children)",
    "cgroups": "cgroup (and those below)",
    "comms": "thread name",
    "cpus": "CPU",
    "policies": "policy",
}
_MOST_NAMED = 3
_LONGEST_NAME = 200
"""Characters of what a filter asked for: a trace may have anything there."""


def min_latency_ns(trace: Trace) -> int:
    """Shortest run-queue wait that became a row; 0 where all did."""
    return natural(trace.meta.get("min_latency_ns"))


def filters(trace: Trace) -> dict[str, list[str]]:
    """What the recording was limited to, by the filter's name; of a merged one that of all in it.

    Values are text: a damaged trace may have anything there.
    """
    each = [of.get("filters") for of in (trace.meta, *merged_parts(trace))]
    found = [(name, value) for of in each if isinstance(of, dict) for name, value in of.items()]
    values = [
        (name, str(v))
        for name, value in found
        for v in (value if isinstance(value, list) else [value])
        if value
    ]
    # Numbers as text: 2 before 10.
    values.sort(key=lambda named: (named[0], len(named[1]), named[1]))
    return {name: list(dict.fromkeys(v for n, v in values if n == name)) for name, _ in values}


def limited_alike(a: Trace, b: Trace) -> bool:
    """Whether two recordings were limited to like parts of what there was.

    A process or cgroup may have another number or name in the other, and be the same service.
    """
    of_a, of_b = filters(a), filters(b)
    return of_a.keys() == of_b.keys() and all(
        of_a.get(name) == of_b.get(name) for name in ("cpus", "policies")
    )


def all_notes(trace: Trace) -> list[str]:
    """What must be said beside any figure: of the trace, and of what was not asked for in it."""
    return [*trace.notes, *filter_notes(trace)]


def filter_notes(trace: Trace) -> list[str]:
    """That not all there was has been recorded, if it was asked for a part."""
    found = filters(trace)
    if not found:
        return []
    said = "; ".join(_filter(name, values) for name, values in found.items())
    some = "in some of the recordings in it " if merged_parts(trace) else ""
    return [f"{some}only waits of a part of the machine were recorded: {said}"]


def _filter(name: str, values: list[str]) -> str:
    if name == "policies":
        names = {str(number): policy for number, policy in POLICIES.items()}
        values = [names.get(v, v) for v in values]
    named = ", ".join(v[:_LONGEST_NAME] for v in values[:_MOST_NAMED])
    more = f" and {len(values) - _MOST_NAMED:,} more" if len(values) > _MOST_NAMED else ""
    return f"{_OF_FILTERS.get(name, name[:_LONGEST_NAME])} {named}{more}"


def clock_ns(trace: Trace, name: str) -> int:
    """start_ns, end_ns (CLOCK_MONOTONIC), start_unix_ns or end_unix_ns; 0 where unknown."""
    clock = trace.meta.get("clock")
    return natural(clock.get(name)) if isinstance(clock, dict) else 0


def clock_of(trace: Trace) -> Clock:
    """From the wall clock to ns from the start of the recording, through the trace's own map."""
    length = clock_ns(trace, "end_ns") - clock_ns(trace, "start_ns")
    ends = clock_ns(trace, "start_unix_ns"), clock_ns(trace, "end_unix_ns")
    return Clock(0, length, *ends, furthest_ns(trace.meta.get("clock")))


def clock_notes(trace: Trace, what: str) -> list[str]:
    """What must be said of how something is placed by its times of the wall clock."""
    clock = clock_of(trace)
    if not clock.stepped:
        return []
    ahead_ns = clock.furthest_ns if clock.set_back else clock.ahead_ns
    by, when = format_duration(abs(ahead_ns)), "late" if ahead_ns > 0 else "early"
    if clock.set_back:
        return [
            f"the wall clock was set during the recording, and set back: {what} of the time "
            f"between are placed up to {by} too {when}"
        ]
    return [
        f"the wall clock was set during the recording: {what} of the time after that are placed "
        f"{by} too {when}"
    ]


def node_of_cpu(trace: Trace) -> dict[int, int]:
    """By CPU its NUMA node; CPUs that the metadata does not name are left out."""
    nodes = trace.meta.get("nodes")
    found: dict[int, int] = {}
    for node, cpus in nodes.items() if isinstance(nodes, dict) else ():
        if not (isinstance(node, str) and node.isascii() and node.isdigit() and len(node) < 6):
            continue
        for cpu in cpus if isinstance(cpus, list) else ():
            if isinstance(cpu, int) and 0 <= cpu < _MAX_CPUS:
                found[cpu] = int(node)
    return found


def recorded_ns(
    trace: Trace,
    start_ns: int | None = None,
    end_ns: int | None = None,
    machines: frozenset[int] | None = None,
) -> int:
    """How long was recorded within a stretch of CLOCK_MONOTONIC; see `recorded_times`."""
    return sum(end - start for start, end in recorded_times(trace, start_ns, end_ns, machines))


def recorded_times(
    trace: Trace,
    start_ns: int | None = None,
    end_ns: int | None = None,
    machines: frozenset[int] | None = None,
) -> list[tuple[int, int]]:
    """What was recorded of a stretch of CLOCK_MONOTONIC, without gaps of a merged trace.

    Args:
        trace: Where from.
        start_ns: Where the stretch begins; the recording's start by default.
        end_ns: Where it ends; the recording's end by default.
        machines: Those of a merged trace of which one is enough; by default any.

    Returns:
        Begin and end of each part, in order; none overlap.
    """
    reached = clock_ns(trace, "start_ns") if start_ns is None else start_ns
    last = clock_ns(trace, "end_ns") if end_ns is None else end_ns
    found = []
    for start, end in _recordings(trace, machines):
        begin, stop = max(start, reached), min(end, last)
        if begin < stop:
            found.append((begin, stop))
            reached = stop
    return found


def recorded_sql(trace: Trace, pid: str) -> str:
    """SQL for how long the machine of a process was recorded.

    Args:
        trace: Where from.
        pid: SQL for the process's id.
    """
    each = {m: max(recorded_ns(trace, machines=frozenset((m,))), 1) for m in hosts(trace)}
    cases = " ".join(f"WHEN {machine} THEN {ns}" for machine, ns in each.items())
    whole = recorded_ns(trace)
    return f"(CASE {pid} // {PID_SPACE} {cases} ELSE {whole} END)" if cases else str(whole)


def gaps(trace: Trace) -> list[tuple[int, int]]:
    """The times between the recordings of a merged trace, in which nothing was recorded."""
    return _between(_recordings(trace))


@dataclass(frozen=True)
class Machine:
    """One of the machines of a merged trace.

    Attributes:
        host: Its name, with which its cgroups' paths begin.
        first_cpu: Its CPUs' numbers begin there.
        gaps: Begin and end of each time in which it was not recorded.
    """

    host: str
    first_cpu: int
    gaps: list[tuple[int, int]]


def machine_times(trace: Trace, start_ns: int, end_ns: int, shortest_ns: int = 1) -> list[Machine]:
    """The machines of a merged trace within a stretch of its time; none of a trace of one.

    Args:
        trace: Where from.
        start_ns: Where the stretch begins (CLOCK_MONOTONIC).
        end_ns: Where it ends.
        shortest_ns: Shorter gaps are none.
    """
    first_cpus = {_machine(p): natural(p.get("cpu_offset")) for p in merged_parts(trace)}
    found = []
    for machine, host in hosts(trace).items() if len(first_cpus) > 1 else ():
        edges = [(start_ns, start_ns), *_recordings(trace, frozenset((machine,))), (end_ns, end_ns)]
        held = [(a, b) for a, b in _between(edges) if b - a >= shortest_ns]
        found.append(Machine(host, first_cpus[machine], held))
    return found


def _between(times: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is in none of these times, which are in the order of their begins."""
    found, reached = [], times[0][1]
    for start, end in times[1:]:
        if start > reached:
            found.append((reached, start))
        reached = max(reached, end)
    return found


def recorded_ns_with(trace: Trace, pid: int, runtime: str) -> int:
    """How long the recordings were, together, in which a process was looked into; at least 1."""
    held = [end - start for start, end in recordings_with(trace, pid, runtime)]
    return max(sum(held) or recorded_ns(trace), 1)


def recordings_with(trace: Trace, pid: int, runtime: str) -> list[tuple[int, int]]:
    """Start and end of each recording in which a process was looked into, as one of a runtime."""
    found = trace.sql(
        "SELECT DISTINCT from_ns FROM targets WHERE pid = ? AND runtime = ?", [pid, runtime]
    )
    moments = found["from_ns"].to_pylist()
    parts = _recordings(trace, machines_of(trace, {"pid": (pid,)}))
    if not moments or None in moments:
        return parts
    return sorted({p for p in (_recording_of(parts, ns) for ns in moments) if p is not None})


def lived_ns(trace: Trace, pid: int, runtime: str) -> int:
    """How long a process was looked into: those that are replaced live for a part of a recording.

    By exec it may have been one of another runtime before, or be one later.

    A second at least, as any program waits for locks and collects while it starts; the whole
    recording where its rows of `targets` do not tell.
    """
    whole, lived = recorded_ns_with(trace, pid, runtime), _known_life_ns(trace, pid, runtime)
    return min(max(lived, 1_000_000_000), whole) if lived else whole


def _known_life_ns(trace: Trace, pid: int, runtime: str) -> int:
    """0 where its rows of `targets` do not tell."""
    rows = trace.sql(
        "SELECT from_ns, until_ns FROM targets "
        "WHERE pid = ? AND runtime = ? AND level IS NOT NULL AND from_ns IS NOT NULL",
        [pid, runtime],
    ).to_pylist()
    parts, lived = _recordings(trace, machines_of(trace, {"pid": (pid,)})), 0
    for row in rows:
        if part := _recording_of(parts, row["from_ns"]):
            start, end = part
            until = end if row["until_ns"] is None else min(row["until_ns"], end)
            lived += max(until - max(row["from_ns"], start), 0)
    return lived


def _recording_of(parts: list[tuple[int, int]], ns: int) -> tuple[int, int] | None:
    """The recording in which a process was looked into at a moment.

    Most are before their recording begins: it is the first that ends after that.
    """
    return next((p for p in parts if p[1] >= ns), None)


def _recordings(trace: Trace, machines: frozenset[int] | None = None) -> list[tuple[int, int]]:
    """Start and end of each recording that is in the trace, by start; or of some machines."""
    parts = merged_parts(trace)
    if not parts:
        return [(clock_ns(trace, "start_ns"), clock_ns(trace, "end_ns"))]
    return sorted(
        (natural(m.get("start_ns")), natural(m.get("end_ns")))
        for m in parts
        if machines is None or _machine(m) in machines
    )


def machines_of(trace: Trace, values: Mapping[str, Sequence[object]]) -> frozenset[int] | None:
    """Machines of a merged trace that waits with these values can be of; None for any.

    Args:
        trace: Where from.
        values: By dimension those that are wanted, as of a selection.
    """
    parts = merged_parts(trace)
    found: frozenset[int] | None = None
    for name, wanted in values.items():
        each = {_machine_with(parts, name, value) for value in wanted}
        known = frozenset(machine for machine in each if machine is not None)
        if len(known) == len(each):
            found = known if found is None else found & known
    return found or None


def _machine_with(parts: list[dict[str, Any]], name: str, value: object) -> int | None:
    """The machine that has this value of a dimension; None where several can."""
    if name == "cgroup":
        own = (m for m in parts if str(value).startswith(f"{m.get('host')}:"))
        return next(map(_machine, own), None)
    if name not in _OFFSETS or not str(value).isdecimal():
        return None
    # The numbers of each machine begin where those of the one before end.
    begins = {natural(m.get(_OFFSETS[name])): _machine(m) for m in parts}
    before = [begin for begin in begins if begin <= int(str(value))]
    return begins[max(before)] if before else None


def hosts(trace: Trace) -> dict[int, str]:
    """By machine of a merged trace its name; of one that is none: empty."""
    return {_machine(part): str(part.get("host")) for part in merged_parts(trace)}


def _machine(part: dict[str, Any]) -> int:
    return natural(part.get("pid_offset")) // PID_SPACE


def merged_parts(trace: Trace) -> list[dict[str, Any]]:
    """What the trace says of each recording that was merged into it; of one that is none: empty."""
    merged = trace.meta.get("merged")
    return [m for m in merged if isinstance(m, dict)] if isinstance(merged, list) else []


def natural(value: object) -> int:
    """A whole number of meta.json, which may hold anything; else 0."""
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0
