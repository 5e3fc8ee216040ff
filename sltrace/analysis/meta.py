"""Fields of a trace's metadata that analysis computes with, whatever the file says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_MAX_CPUS = 1 << 16


def min_latency_ns(trace: Trace) -> int:
    """Shortest run-queue wait that became a row; 0 where all did."""
    return natural(trace.meta.get("min_latency_ns"))


def clock_ns(trace: Trace, name: str) -> int:
    """start_ns, end_ns (CLOCK_MONOTONIC), start_unix_ns or end_unix_ns; 0 where unknown."""
    clock = trace.meta.get("clock")
    return natural(clock.get(name)) if isinstance(clock, dict) else 0


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


def recorded_ns(trace: Trace, start_ns: int | None = None, end_ns: int | None = None) -> int:
    """How long was recorded within a stretch of CLOCK_MONOTONIC, without gaps of a merged trace.

    Args:
        trace: Where from.
        start_ns: Where the stretch begins; the recording's start by default.
        end_ns: Where it ends; the recording's end by default.
    """
    first = clock_ns(trace, "start_ns") if start_ns is None else start_ns
    last = clock_ns(trace, "end_ns") if end_ns is None else end_ns
    recorded, reached = 0, first
    for start, end in _recordings(trace):
        begin, stop = max(start, reached), min(end, last)
        if begin < stop:
            recorded, reached = recorded + stop - begin, stop
    return recorded


def gaps(trace: Trace) -> list[tuple[int, int]]:
    """The times between the recordings of a merged trace, in which nothing was recorded."""
    found: list[tuple[int, int]] = []
    (_, reached), *later = _recordings(trace)
    for start, end in later:
        if start > reached:
            found.append((reached, start))
        reached = max(reached, end)
    return found


def recorded_ns_with(trace: Trace, pid: int) -> int:
    """How long the recordings were, together, in which a process was looked into; at least 1."""
    held = [end - start for start, end in recordings_with(trace, pid)]
    return max(sum(held) or recorded_ns(trace), 1)


def recordings_with(trace: Trace, pid: int) -> list[tuple[int, int]]:
    """Start and end of each recording in which a process was looked into."""
    found = trace.sql("SELECT DISTINCT from_ns FROM targets WHERE pid = ?", [pid])
    moments = found["from_ns"].to_pylist()
    parts = _recordings(trace, pid)
    if not moments or None in moments:
        return parts
    return sorted({p for p in (_recording_of(parts, ns) for ns in moments) if p is not None})


def lived_ns(trace: Trace, pid: int) -> int:
    """How long a process was looked into: those that are replaced live for a part of a recording.

    A second at least, as any program waits for locks and collects while it starts; the whole
    recording where its rows of `targets` do not tell.
    """
    whole, lived = recorded_ns_with(trace, pid), _known_life_ns(trace, pid)
    return min(max(lived, 1_000_000_000), whole) if lived else whole


def _known_life_ns(trace: Trace, pid: int) -> int:
    """0 where its rows of `targets` do not tell."""
    rows = trace.sql(
        "SELECT from_ns, until_ns FROM targets "
        "WHERE pid = ? AND level IS NOT NULL AND from_ns IS NOT NULL",
        [pid],
    ).to_pylist()
    parts, lived = _recordings(trace, pid), 0
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


def _recordings(trace: Trace, pid: int | None = None) -> list[tuple[int, int]]:
    """Start and end of each recording that is in the trace, by start; or of a process's machine."""
    parts = merged_parts(trace)
    if not parts:
        return [(clock_ns(trace, "start_ns"), clock_ns(trace, "end_ns"))]
    if pid is not None:
        # The ids of each machine begin where those of the one before end.
        offsets = [natural(m.get("pid_offset")) for m in parts]
        own = max((o for o in offsets if o <= pid), default=0)
        parts = [m for m, offset in zip(parts, offsets, strict=True) if offset == own]
    return sorted((natural(m.get("start_ns")), natural(m.get("end_ns"))) for m in parts)


def merged_parts(trace: Trace) -> list[dict[str, Any]]:
    """What the trace says of each recording that was merged into it; of one that is none: empty."""
    merged = trace.meta.get("merged")
    return [m for m in merged if isinstance(m, dict)] if isinstance(merged, list) else []


def natural(value: object) -> int:
    """A whole number of meta.json, which may hold anything; else 0."""
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0
