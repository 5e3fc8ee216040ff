"""Which machine a trace is of, and how its ids and times become those of a merged trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sltrace.errors import TraceError, UsageError
from sltrace.model import PID_SPACE

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_SAME_BOOT_NS = 1_000_000_000
"""Monotonic clocks of one boot differ from the wall clock by the same, but for its corrections."""
_STEPPED_NS = 10_000_000
_STEPPED_SHARE = 1e-3
_MAX_MACHINES = (1 << 31) // PID_SPACE - 1
_MAX_CPUS = 1 << 16
_SCATTER = 0x1E3779B97F4A7C15
"""Odd, below 2^61: its multiples are far from each other in every bit."""
_IDS = (1 << 63) - 1


@dataclass(frozen=True)
class Clock:
    """The monotonic clock of a trace and the wall clock at its ends, ns."""

    start_ns: int
    end_ns: int
    start_unix_ns: int
    end_unix_ns: int

    @property
    def stepped(self) -> bool:
        """The wall clock was set during the recording."""
        length, wall = self.end_ns - self.start_ns, self.end_unix_ns - self.start_unix_ns
        return abs(wall - length) > _STEPPED_NS + length * _STEPPED_SHARE

    @property
    def rate(self) -> tuple[int, int]:
        """Wall clock ns to monotonic ns; equal where they cannot be told."""
        length, wall = self.end_ns - self.start_ns, self.end_unix_ns - self.start_unix_ns
        if self.stepped or length <= 0 or wall <= 0:
            return 1, 1
        return wall, length

    def unix(self, ns: int) -> int:
        """Wall clock at a monotonic time."""
        wall, length = self.rate
        return self.start_unix_ns + (ns - self.start_ns) * wall // length

    def monotonic(self, unix_ns: int) -> int:
        """Monotonic time at a time of the wall clock."""
        wall, length = self.rate
        return self.start_ns + (unix_ns - self.start_unix_ns) * length // wall


@dataclass(frozen=True)
class Part:
    """One trace of a merged one.

    Attributes:
        trace: It.
        clock: Its clock.
        machine: Number of its machine; traces of one boot of one host have the same.
        label: Name of the machine, unlike all others.
        cpu: Added to its CPU numbers.
        node: Added to its NUMA nodes.
        reference: Clock of the first trace, which the merged trace has.
        same_clock: Its monotonic clock is the reference's own.
    """

    trace: Trace
    clock: Clock
    machine: int
    label: str
    cpu: int
    node: int
    reference: Clock
    same_clock: bool

    @property
    def pid(self) -> int:
        """Added to its process ids."""
        return self.machine * PID_SPACE

    @property
    def scatter(self) -> int:
        """Exclusive-ored with its stack and cgroup ids."""
        return self.machine * _SCATTER & _IDS

    @property
    def address_top(self) -> int:
        """The upper 16 bits of its kernel addresses, for which a machine has all ones."""
        return 0xFFFF - self.machine

    def time_sql(self, column: str) -> str:
        """SQL for a time of this trace in the reference's clock; 0 (before everything) stays."""
        if self.same_clock:
            return column
        wall, length = self.clock.rate
        ref_wall, ref_length = self.reference.rate
        unix = (
            f"({self.clock.start_unix_ns} + ({column} - {self.clock.start_ns})::HUGEINT "
            f"* {wall} // {length} - {self.reference.start_unix_ns})"
        )
        moved = f"{self.reference.start_ns} + {unix} * {ref_length} // {ref_wall}"
        return f"(CASE {column} WHEN 0 THEN 0 ELSE ({moved})::BIGINT END)"

    def moved(self, ns: int) -> int:
        """The same for one time."""
        if self.same_clock:
            return ns
        return self.reference.monotonic(self.clock.unix(ns))


def parts_of(traces: Sequence[Trace]) -> list[Part]:
    """Tells the machines apart; the first trace's clock is the reference.

    Raises:
        TraceError: A trace does not say when it was recorded.
        UsageError: More machines or CPUs than ids can tell apart.
    """
    found: list[Part] = []
    clocks = [_clock(trace) for trace in traces]
    hosts: list[tuple[str, Clock]] = []
    cpus = nodes = 0
    for trace, clock in zip(traces, clocks, strict=True):
        host = str(trace.meta.get("host") or "unnamed")
        machine = next(
            (
                i
                for i, (name, other) in enumerate(hosts)
                if name == host and _one_boot(clock, other)
            ),
            len(hosts),
        )
        if machine == len(hosts):
            hosts.append((host, clock))
            offsets = (cpus, nodes)
            used_cpus, used_nodes = _used(trace)
            cpus, nodes = cpus + used_cpus, nodes + used_nodes
        else:
            first = next(p for p in found if p.machine == machine)
            offsets = (first.cpu, first.node)
        seen = [name for name, _ in hosts[:machine]].count(host)
        label = host if not seen else f"{host}#{seen + 1}"
        found.append(
            Part(trace, clock, machine, label, *offsets, clocks[0], same_clock=machine == 0)
        )
    if len(hosts) > _MAX_MACHINES or cpus > _MAX_CPUS:
        raise UsageError(
            f"{len(hosts)} machines with {cpus:,} CPUs are too many for one trace",
            f"merge at most {_MAX_MACHINES} machines and {_MAX_CPUS:,} CPUs",
        )
    return found


def _one_boot(a: Clock, b: Clock) -> bool:
    offsets = [c.start_unix_ns - c.start_ns for c in (a, b)]
    return abs(offsets[0] - offsets[1]) <= _SAME_BOOT_NS


def _clock(trace: Trace) -> Clock:
    value = trace.meta.get("clock")
    clock = value if isinstance(value, dict) else {}
    times = [clock.get(name) for name in Clock.__dataclass_fields__]
    known = [t for t in times if isinstance(t, int) and 0 <= t < 2**62]
    if len(known) != len(times):
        raise TraceError(f"{trace.path} does not say when it was recorded", "leave it out")
    return Clock(*known)


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
