"""What a cube is: the data that `sltrace.analysis.cube` makes, and profiles beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.analysis.cubeblame import BlameTable
    from sltrace.analysis.cubegrids import Grid
    from sltrace.analysis.losses import Losses, LossInterval
    from sltrace.analysis.meta import Machine
    from sltrace.analysis.slowtraces import SlowTraces
    from sltrace.profiles.pprof import Unit


@dataclass(frozen=True)
class Owner:
    """What a sample can be selected by.

    Attributes:
        trace: Its number among the cube's slow traces; -1 if it is none of them.
        bucket: Its trace's number among the cube's buckets; -1 if there is none.
        comm: Its thread's number among the cube's threads, or one more than they are if it is none
            of them; -1 if unknown.
        start_ns: When its trace first waited, from the start of the cube; -1 if it never did.
        end_ns: When it last did.
        traced: Whether it has a trace.
    """

    trace: int = -1
    bucket: int = -1
    comm: int = -1
    start_ns: int = -1
    end_ns: int = -1
    traced: bool = False


NOBODY = Owner()


@dataclass(frozen=True)
class MergedProfile:
    """What a page says about a profile in it.

    Attributes:
        where: Path or URL.
        measure: What its values are: cpu, delay, goroutine ...
        unit: What they are in.
        on_cpu: Whether they are time on the CPU.
        total: All of it.
        outside: What of it is not in the cube, because that is a part of the recording only.
        sentence: The same in words.
    """

    where: str
    measure: str
    unit: Unit
    on_cpu: bool
    total: int
    outside: int
    sentence: str


@dataclass(frozen=True)
class Cube:
    """Waits by time bin, latency bucket, CPU, cgroup, thread, policy, kind, trace and stacks.

    Attributes:
        start_ns: Start of time bin 0 (CLOCK_MONOTONIC).
        end_ns: End of the recording, within the last time bin.
        bin_ns: Length of every time bin; a wait is in the bin in which it ended.
        n_bins: How many there are.
        bucket_low_ns: Smallest wait of each latency bucket; the last one has no end.
        cgroups: Names that `rows["cgroup"]` indexes; so too the next four.
        comms: Names of threads.
        policies: Scheduling policies.
        kinds: Kinds of wait.
        buckets: Traces by the last digit of their id.
        cpus: CPU numbers; with `cpu_group` above 1, the first of each group.
        cpu_group: How many CPUs with adjacent numbers are one.
        nodes: NUMA node of each CPU that the trace names.
        stacks: Frame indices, root first; stack 0 is empty and stands for no stack.
        frames: Frame names.
        frame_kinds: For each frame its language: kernel, native, jit, go, python or other.
        rows: Columns of equal length: t, b, cpu, cgroup, comm, policy, kind, bucket, stack,
            waker_stack, count, sum_ns, max_ns; by t.
        blame: Who ran meanwhile.
        slow_traces: The distributed traces that lost most time.
        losses: What the trace lacks.
        loss_intervals: Where and when; those of a CPU added up where they would be too many.
        gaps: Begin and end of each time in which nothing was recorded.
        machines: Those of a merged trace of several, each with gaps of its own.
        totals: By kind, exact count, sum_ns and max_ns (None: histograms do not tell).
        source: Table the rows are from. From histograms, sums and maxima are of bucket midpoints.
        notes: What was aggregated, a sentence each.
        time_merged: How many of the finest time bins one of these is; so too the next.
        buckets_merged: Latency buckets.
        grids: By axis (b, cpu, cgroup ...) a finer heatmap, where these rows are coarse. A time
            bin or bucket there is one of the finest, a CPU its number.
        profiles: Profiles whose stacks are among these.
        profile_rows: Their values: profile, stack, owner, window, value.
        profile_owners: That `profile_rows["owner"]` indexes.
        profile_windows: That `profile_rows["window"]` indexes: begin and end from the start of time
            bin 0; None for unknown.
    """

    start_ns: int
    end_ns: int
    bin_ns: int
    n_bins: int
    bucket_low_ns: list[int]
    cgroups: list[str]
    comms: list[str]
    policies: list[str]
    kinds: list[str]
    buckets: list[str]
    cpus: list[int]
    cpu_group: int
    nodes: dict[int, int]
    stacks: list[list[int]]
    frames: list[str]
    frame_kinds: list[str]
    rows: dict[str, NDArray[Any]]
    blame: BlameTable
    slow_traces: SlowTraces
    losses: Losses
    loss_intervals: list[LossInterval]
    gaps: list[tuple[int, int]]
    machines: list[Machine]
    totals: dict[str, dict[str, int | None]]
    source: Literal["waits", "histograms"]
    notes: list[str]
    time_merged: int
    buckets_merged: int
    grids: dict[str, Grid]
    profiles: list[MergedProfile] = field(default_factory=list)
    profile_rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    profile_owners: list[Owner] = field(default_factory=list)
    profile_windows: list[tuple[int, int] | None] = field(default_factory=list)
