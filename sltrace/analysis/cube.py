"""A trace as one table small enough for a page: waits summed by everything the page selects by.

Counts and times are exact however coarse the table is; what was merged to make it small is said
in `notes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sltrace.analysis.cells import MAX_CELLS, OTHER, Axis, Cells, Step, bucket_sql, summed_cells
from sltrace.analysis.losses import LossInterval, losses
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.stacks import _GONE, Frame, Which, _registered, resolve_stacks
from sltrace.buckets import N_BUCKETS, lower_bounds
from sltrace.model import RUNQ_KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.trace.reader import Trace

OTHER_NAME = "(other)"
MAX_CULPRIT_ROWS = 50_000
MAX_LOSSES = 20_000
_MAX_BINS = 10_000
_MAX_CPUS = 1 << 16
_MAX_NAMES = {"cgroup": 2000, "policy": 16, "kind": 16, "culprit_comm": 2000, "comm": 200}
_MAX_STACKS = 20_000
_MAX_PAIRS = 50_000
"""Pairs of kernel and user stack that are looked up; a machine has thousands."""

_FEW = 1
"""Digit of the empty stack, the one rank that is not by time."""


@dataclass(frozen=True)
class Cube:
    """Waits by time bin, latency bucket, CPU, cgroup, policy, kind and stacks.

    Attributes:
        start_ns: Start of time bin 0 (CLOCK_MONOTONIC).
        end_ns: End of the recording, within the last time bin.
        bin_ns: Length of every time bin; a wait is in the bin in which it ended.
        n_bins: How many there are.
        bucket_low_ns: Smallest wait of each latency bucket; the last one has no end.
        cgroups: Names that `rows["cgroup"]` indexes; so too the next three.
        policies: Scheduling policies.
        kinds: Kinds of wait.
        cpus: CPU numbers; with `cpu_group` above 1, the first of each group.
        cpu_group: How many CPUs with adjacent numbers are one.
        comms: Names of the threads that waited most, most time first.
        culprits: Names that `culprit_rows["culprit"]` indexes; empty where it was not seen who ran.
        stacks: Frame indices, root first; stack 0 is empty and stands for no stack.
        frames: Frame names.
        frame_kinds: For each frame kernel, native, jit or other.
        rows: Columns of equal length: t (u2), b (u1), cpu (u2), cgroup (u2), policy (u1), kind
            (u1), stack (u4), waker_stack (u4), count (u4), sum_ns (u8), max_ns (u8).
        culprit_rows: Run-queue waits by main culprit: t (u2), cgroup (u2), kind (u1), culprit
            (u2), ns (u8), count (u4). ns is how long it ran; where unknown, the waits' length.
        losses: Where waits were lost: t0 and t1 (ns), cpu, name, value.
        missed: By cause, count, low_ns and high_ns of waits whose length is only bounded.
        totals: By kind, exact count, sum_ns and max_ns (None: histograms do not tell).
        source: Table the rows are from. From histograms, sums are of bucket midpoints and maxima
            the buckets' ends.
        notes: What was aggregated, a sentence each.
    """

    start_ns: int
    end_ns: int
    bin_ns: int
    n_bins: int
    bucket_low_ns: list[int]
    cgroups: list[str]
    policies: list[str]
    kinds: list[str]
    cpus: list[int]
    cpu_group: int
    comms: list[str]
    culprits: list[str]
    stacks: list[list[int]]
    frames: list[str]
    frame_kinds: list[str]
    rows: dict[str, NDArray[Any]]
    culprit_rows: dict[str, NDArray[Any]]
    losses: list[dict[str, Any]]
    missed: dict[str, dict[str, int]]
    totals: dict[str, dict[str, int | None]]
    source: Literal["waits", "histograms"]
    notes: list[str]


# A stack's cells multiply most and matter least where they are rare; latency is what the page is
# about, so it is merged after names and CPUs were.
_LADDER: tuple[Step, ...] = (
    (("stack", 4001), ("waker_stack", 4001)),
    (("stack", 1001), ("waker_stack", 1001)),
    (("stack", 251), ("waker_stack", 251)),
    (("t", 2),),
    (("cgroup", 60),),
    (("b", 2),),
    (("stack", 61), ("waker_stack", 61)),
    (("cpu", 2),),
    (("cgroup", 30),),
    (("cpu", 4),),
    (("t", 4),),
    (("stack", 16), ("waker_stack", 16)),
    (("cpu", 8),),
    (("b", 4),),
    (("cgroup", 15),),
    (("cpu", 16),),
    (("stack", 1), ("waker_stack", 1)),
    (("b", 8),),
    (("cgroup", 5), ("cpu", 64)),
    (("t", 8),),
    (("cpu", _MAX_CPUS), ("stack", 0), ("waker_stack", 0)),
    (("b", 32), ("policy", 0)),
    (("cgroup", 0), ("t", 64)),
    (("b", 256),),
    (("t", 1 << 14),),
    (("kind", 0),),
)
_CULPRIT_LADDER: tuple[Step, ...] = tuple(
    ((axis, n),)
    for axis, n in (
        *(("culprit", n) for n in (500, 200, 100, 50, 20)),
        ("cgroup", 60),
        ("culprit", 8),
        ("cgroup", 20),
        ("culprit", 2),
        ("cgroup", 5),
        ("culprit", 0),
        ("cgroup", 0),
    )
)
