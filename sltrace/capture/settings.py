"""What to record, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRACE_LABELS, TRACE_LABEL_BYTES = 4, 24
"""pprof labels that are looked for, and bytes of each, at most: GO_LABEL_* of probes/go.h."""
MOST_A_SECOND = 1_000_000
"""Stacks on a CPU: more than any can take, and what the probes' counters hold."""


def each_ns(rate: int) -> int:
    """ns between two of so many a second: what the probes are told; 0 for no cap."""
    return 1_000_000_000 // rate if rate else 0


@dataclass(frozen=True)
class Filters:
    """Which tasks' waits are kept; empty means all. Different filters must all match.

    Attributes:
        pids: Processes, with their threads and the children they make.
        cgroups: cgroup paths, with everything below them.
        comms: Thread names, exact.
        cpus: CPUs on which a wait ended.
        policies: SCHED_* numbers.
    """

    pids: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    comms: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    policies: tuple[int, ...] = ()

    def as_meta(self) -> dict[str, Any]:
        """Only those that are set."""
        return {name: list(value) for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class Stacks:
    """Which stacks are taken with a wait.

    Attributes:
        kernel: The waiting task's kernel stack.
        user: Its user stack (frame pointers).
        waker: Kernel and user stack of the task that ended the block.
        min_ns: Only for waits at least this long.
        rate_per_cpu: At most this many stacks per second and CPU; 0 for no cap.
    """

    kernel: bool = False
    user: bool = False
    waker: bool = False
    min_ns: int = 0
    rate_per_cpu: int = 0

    @property
    def any(self) -> bool:
        """Whether any stack is asked for."""
        return self.kernel or self.user or self.waker


@dataclass(frozen=True)
class Python:
    """How Python processes among those asked for are looked into.

    Attributes:
        wanted: Whether they are.
        rate_per_cpu: At most this many Python stacks per second and CPU; 0 for no cap.
        loops: Iterations of event loops exactly, which costs every system call of the machine.
    """

    wanted: bool = True
    rate_per_cpu: int = 5000
    loops: bool = False


@dataclass(frozen=True)
class Go:
    """How much is recorded of Go processes.

    Attributes:
        wanted: Whether they are looked into.
        level: 0 memory reads only, 1 one probe, 2 also the tracked path,
            3 every change of state; None for 0 of the whole machine, 1 where a filter names them.
        budget: Share of the CPU time of each process that its probes may take, infinity for no
            limit; None for what is usual at the level.
        trace_labels: pprof labels that hold a trace id.
    """

    wanted: bool = True
    level: int | None = None
    budget: float | None = None
    trace_labels: tuple[str, ...] = ("trace_id", "trace id", "otel_traceid")


@dataclass(frozen=True)
class Profiles:
    """Profiles of others that are taken into the trace.

    Attributes:
        listen: Address and port to receive them on; None for not at all.
        files: Read when the recording ends.
    """

    listen: tuple[str, int] | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Settings:
    """Everything that shapes a recording.

    Attributes:
        min_latency_ns: Shorter waits are in the histograms only.
        histogram_only: Keep no single waits.
        blocked: Keep waits of kind blocked.
        ring_bytes: Size of each CPU's ring at most; 0 to choose by the number of CPUs.
    """

    filters: Filters = field(default_factory=Filters)
    stacks: Stacks = field(default_factory=Stacks)
    python: Python = field(default_factory=Python)
    go: Go = field(default_factory=Go)
    profiles: Profiles = field(default_factory=Profiles)
    min_latency_ns: int = 0
    histogram_only: bool = False
    blocked: bool = True
    ring_bytes: int = 0
