"""Which machine a trace is of, and how its ids and times become those of a merged trace."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sltrace.errors import UsageError
from sltrace.model import PID_SPACE
from sltrace.trace.clock import Clock

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_MAX_MACHINES = (1 << 31) // PID_SPACE - 1
_MAX_CPUS = 1 << 16
_SCATTER = 0x1E3779B97F4A7C15
"""Odd, below 2^61: its multiples are far from each other in every bit."""
_IDS = (1 << 63) - 1
_PYTHON_IDS = _IDS & -1 << 20
"""Python addresses are 2^63 and a number below 2^20: what tells those of two recordings apart."""


@dataclass(frozen=True)
class Recording:
    """What `merged` of a merged trace's metadata says of one recording in it.

    Attributes:
        trace: File name of its trace.
        host: Name of its machine, unlike all others.
        machine: Number of its machine; recordings of one boot have the same.
        boot_id: As in its own metadata; empty if unknown.
        pid_offset: Added to its process ids.
        cpu_offset: Added to its CPU numbers.
        node_offset: Added to its NUMA nodes.
        id_xor: Exclusive-ored with its stack and cgroup ids.
        python_xor: Exclusive-ored with its ids and addresses of Python stacks instead, unlike
            that of all others: a recording numbers the places in code as it comes across them.
        start_ns: When it began, on the merged trace's clock.
        end_ns: When it ended.
        moved_ns: What its start was moved by, to be on that clock.
        filters: As in its own metadata.
        command_line: Likewise.
    """

    trace: str
    host: str
    machine: int
    boot_id: str
    pid_offset: int
    cpu_offset: int
    node_offset: int
    id_xor: int
    python_xor: int
    start_ns: int
    end_ns: int
    moved_ns: int
    filters: Any
    command_line: Any


@dataclass(frozen=True)
class Part:
    """One trace of a merged one.

    Attributes:
        trace: It.
        name: Its file name, unlike all others.
        clock: Its clock.
        base: The clock of the first trace of its machine, by which the times of all are moved.
        machine: Number of its machine, or of the first where it is a merged trace of several.
        label: Name of the machine, unlike all others.
        cpu: Added to its CPU numbers.
        node: Added to its NUMA nodes.
        scatter: Exclusive-ored with its stack and cgroup ids.
        python: Exclusive-ored with its ids and addresses of Python stacks.
        reference: The clock that the merged trace has.
        same_clock: Its monotonic clock is the reference's own.
        inner: The recordings in it where it is merged itself, on its own clock.
    """

    trace: Trace
    name: str
    clock: Clock
    base: Clock
    machine: int
    label: str
    cpu: int
    node: int
    scatter: int
    python: int
    reference: Clock
    same_clock: bool
    inner: tuple[Recording, ...] = ()

    @property
    def machines(self) -> int:
        """How many it has waits of."""
        return _machines(self.inner)

    @property
    def pid(self) -> int:
        """Added to its process ids."""
        return self.machine * PID_SPACE

    @property
    def address_top(self) -> int:
        """The upper 16 bits of its kernel addresses, for which a machine has all ones."""
        return 0xFFFF - self.machine

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """The recordings in it, on the merged trace's clock: several where it is merged itself."""
        meta = self.trace.meta
        itself = Recording(
            trace=self.name,
            host=self.label,
            machine=0,
            boot_id=_boot_id(meta),
            pid_offset=0,
            cpu_offset=0,
            node_offset=0,
            id_xor=0,
            python_xor=0,
            start_ns=self.clock.start_ns,
            end_ns=self.clock.end_ns,
            moved_ns=0,
            filters=meta.get("filters"),
            command_line=meta.get("command_line"),
        )
        return tuple(map(self._within, self.inner or (itself,)))

    def _within(self, recording: Recording) -> Recording:
        start = self.moved(recording.start_ns)
        return replace(
            recording,
            host=recording.host if self.machines > 1 else self.label,
            machine=self.machine + recording.machine,
            pid_offset=self.pid + recording.pid_offset,
            cpu_offset=self.cpu + recording.cpu_offset,
            node_offset=self.node + recording.node_offset,
            id_xor=self.scatter ^ recording.id_xor,
            python_xor=self.python ^ recording.python_xor,
            start_ns=start,
            end_ns=self.moved(recording.end_ns),
            moved_ns=start - recording.start_ns + recording.moved_ns,
        )

    def time_sql(self, column: str) -> str:
        """SQL for a time of this trace in the reference's clock; 0 (before everything) stays."""
        if self.same_clock:
            return column
        return f"(CASE {column} WHEN 0 THEN 0 ELSE {column}::BIGINT + {self.moved(0)} END)"

    def moved(self, ns: int) -> int:
        """The same for one time."""
        if self.same_clock:
            return ns
        return self.reference.monotonic(self.base.unix(ns))


def parts_of(traces: Sequence[Trace]) -> list[Part]:
    """Tells the machines apart; the first trace's clock is the reference if it reaches back so far.

    Raises:
        TraceError: A trace does not say when it was recorded.
        UsageError: More machines or CPUs than ids can tell apart, or a merged trace of several
            machines with another trace of one of them.
    """
    found: list[Part] = []
    clocks = [Clock.of(trace) for trace in traces]
    machines = cpus = nodes = 0
    for trace, clock in zip(traces, clocks, strict=True):
        inner = _recordings(trace)
        name = _unlike(trace.path.name, {p.name for p in found})
        used = [r for p in found for r in p.recordings]
        already, taken = ({r.python_xor for r in of} for of in (inner, used))
        python = _scatter(len(used), already, taken, _PYTHON_IDS)
        if same := next((p for p in found if _is_of(p, trace, clock)), None):
            found.append(
                replace(same, trace=trace, name=name, clock=clock, python=python, inner=inner)
            )
            continue
        _refuse_in_both(found, trace, inner)
        host = _host(trace)
        part = Part(
            trace=trace,
            name=name,
            clock=clock,
            base=clock,
            machine=machines,
            label=host if _machines(inner) > 1 else _unlike(host, {p.label for p in found}),
            cpu=cpus,
            node=nodes,
            scatter=_scatter(machines, {r.id_xor for r in inner}, {r.id_xor for r in used}),
            python=python,
            reference=clocks[0],
            same_clock=not found,
            inner=inner,
        )
        found.append(part)
        used_cpus, used_nodes = _used(trace)
        machines, cpus, nodes = machines + part.machines, cpus + used_cpus, nodes + used_nodes
    if machines > _MAX_MACHINES or cpus > _MAX_CPUS:
        raise UsageError(
            f"{machines} machines with {cpus:,} CPUs are too many for one trace",
            f"merge at most {_MAX_MACHINES} machines and {_MAX_CPUS:,} CPUs",
        )
    return _within_reach(found)


def _within_reach(parts: list[Part]) -> list[Part]:
    """The same, on the clock of the machine that booted first where one began before another did.

    Before its boot a machine's clock would be negative, which times of a trace are not.
    """
    if all(p.moved(p.clock.start_ns) >= 0 for p in parts):
        return parts
    oldest = min(parts, key=lambda p: p.base.start_unix_ns - p.base.start_ns)
    return [
        replace(p, reference=oldest.base, same_clock=p.machine == oldest.machine) for p in parts
    ]


def _host(trace: Trace) -> str:
    # JSON may have what is in no UTF-8.
    return str(trace.meta.get("host") or "unnamed").encode(errors="replace").decode()


def _boot_id(meta: Mapping[str, Any]) -> str:
    found = meta.get("boot_id")
    return found if isinstance(found, str) else ""


def _is_of(part: Part, trace: Trace, clock: Clock) -> bool:
    """Whether a trace is of the machine that a part is of, as the same boot of it.

    A container's host name is its own, and the wall clock may be set.
    """
    if part.machines > 1:
        return False
    boots = _boot_id(part.trace.meta), _boot_id(trace.meta)
    if all(boots):
        return boots[0] == boots[1]
    return _host(part.trace) == _host(trace) and part.clock.of_one_boot(clock)


def _unlike(name: str, others: set[str]) -> str:
    """The name, with a number where others have it already."""
    numbered = (f"{name}#{i}" for i in itertools.count(2))
    return name if name not in others else next(n for n in numbered if n not in others)


def _scatter(first: int, already: Set[int], used: Set[int], bits: int = _IDS) -> int:
    """What a part's ids are exclusive-ored with, so that no two have the same.

    Args:
        first: Which multiple to try first: the number of the part.
        already: What the ids of the recordings in it were exclusive-ored with.
        used: What those of the parts before it are.
        bits: Those in which ids differ by nothing else.
    """
    choices = (i * _SCATTER & bits for i in itertools.count(first))
    return next(c for c in choices if not {c ^ x for x in already or {0}} & used)


def _refuse_in_both(parts: Sequence[Part], trace: Trace, inner: Sequence[Recording]) -> None:
    """Machines in a merged trace keep their numbers: they cannot be those of another trace."""
    known = _hosts(trace, inner)
    for part in parts:
        both = _hosts(part.trace, part.inner).keys() & known.keys()
        if both and (part.machines > 1 or _machines(inner) > 1):
            raise UsageError(
                f"{part.trace.path} and {trace.path} both have waits of {known[min(both)]}, and "
                "one of them is merged of several machines",
                "merge what it was made of instead, all at once",
            )


def _hosts(trace: Trace, inner: Sequence[Recording]) -> dict[str, str]:
    """The names of its machines, by what each is told from others by: its name and its boot."""
    each = [(r.host, r.boot_id) for r in inner]
    if _machines(inner) == 1:
        each = [(_host(trace), _boot_id(trace.meta))]
    return {key: host for host, boot in each for key in (host, boot) if key}


def _recordings(trace: Trace) -> tuple[Recording, ...]:
    """What a trace that was merged says of those in it; of one that was not: nothing."""
    merged = trace.meta.get("merged")
    listed = merged if isinstance(merged, list) else []
    return tuple(
        Recording(
            trace=str(m.get("trace")),
            host=str(m.get("host")),
            machine=_whole(m.get("machine")),
            boot_id=_boot_id(m),
            pid_offset=_whole(m.get("pid_offset")),
            cpu_offset=_whole(m.get("cpu_offset")),
            node_offset=_whole(m.get("node_offset")),
            id_xor=_whole(m.get("id_xor")),
            python_xor=_whole(m.get("python_xor")),
            start_ns=_whole(m.get("start_ns")),
            end_ns=_whole(m.get("end_ns")),
            moved_ns=_whole(m.get("moved_ns")),
            filters=m.get("filters"),
            command_line=m.get("command_line"),
        )
        for m in listed
        if isinstance(m, dict)
    )


def _whole(value: object) -> int:
    """A whole number of a file that may hold anything; else 0."""
    return value if isinstance(value, int) and abs(value) < 1 << 63 else 0


def _machines(recordings: Sequence[Recording]) -> int:
    """How many a trace is of."""
    return max((r.machine for r in recordings), default=0) + 1


def _used(trace: Trace) -> tuple[int, int]:
    """How many CPU and node numbers it uses, holes included."""
    nodes = trace.meta.get("nodes")
    named = nodes if isinstance(nodes, dict) else {}
    listed = [c for cpus in named.values() if isinstance(cpus, list) for c in cpus]
    row = trace.sql(
        "SELECT coalesce((SELECT max(greatest(cpu, prev_cpu)) FROM waits), 0) AS cpu, "
        "coalesce((SELECT max(cpu) FROM counters), 0) AS counted, "
        "coalesce((SELECT max(node) FROM waits), 0) AS node"
    ).to_pylist()[0]
    known = [c for c in listed if isinstance(c, int) and 0 <= c < _MAX_CPUS]
    numbers = [int(n) for n in named if n.isascii() and n.isdigit() and len(n) < 6]
    return max([row["cpu"], row["counted"], *known]) + 1, max([row["node"], *numbers]) + 1
