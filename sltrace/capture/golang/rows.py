"""From the Go probes' records and the samplers' findings to rows, whole arrays at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import tags
from sltrace.capture.columns import KINDS, POLICY_NAMES, named, same, words
from sltrace.capture.golang.sampler import Samples
from sltrace.capture.rows import GroupNames, TaskNames
from sltrace.capture.sources import Rows
from sltrace.model import Flag, Kind
from sltrace.symbols.filebytes import is_unchanged
from sltrace.target.go.histograms import Shape
from sltrace.target.go.inlining import Inlining
from sltrace.target.go.offsets import TRACKED_ONE_IN
from sltrace.target.go.pclntab import Pclntab
from sltrace.target.go.process import GoProcess, Identity
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_RUN, _STW = 1, 2
_STOPPING = (0, 1)
_STW_REASONS = ["stopping for GC", "stopping for other", "GC", "other"]
_MAX_PLACES = 1 << 12
_PIECE = 1 << 16
"""Rows of frames at once: each is 0.5 kB of memory before it is one."""
MAX_NAMING_NS = 60_000_000_000
"""CPU time for files and lines of addresses: at 0.1 ms each for twice as many as there may be."""
NEW, PREEMPTED, YIELDED, CALLED = "new goroutine", "preempted", "yielded", "system call"
"""Why a goroutine that was not parked had stopped."""
OVERWRITTEN = "[its file was overwritten]"
"""What is called a function whose name is not to be had any more."""
_PARKED, _NEW, _PREEMPTED, _YIELDED, _CALLED = range(-1, 4)
"""How a goroutine stopped: parked, or by the number of these."""
_STOPS = {
    "runtime.gopark": _PARKED,
    "runtime.coroswitch": _PARKED,
    "runtime.Gosched": _YIELDED,
    "runtime.goyield": _YIELDED,
    "runtime.goschedguarded": _YIELDED,
    "runtime.goschedIfBusy": _YIELDED,
    "runtime.exitsyscall": _CALLED,
}
"""By the function that gives way to the scheduler, inlined or not."""


class Reasons:
    """Why goroutines had stopped: from where they go on, and the reason they were parked for.

    The runtime leaves the reason of the last park in place, so it holds only for a goroutine that
    goes on within the functions that park.
    """

    def __init__(self, process: GoProcess) -> None:
        self._bias = process.bias
        self.words = [*process.reasons, NEW, PREEMPTED, YIELDED, CALLED]
        """The runtime's, and ours where it has none."""
        self._other = len(process.reasons)
        # Without itself in it, which would have it stay when it is not needed any more.
        of_it = partial(_stopped, process.table, process.inlining)
        self._stopped = lru_cache(_MAX_PLACES)(of_it)

    def of(
        self,
        pcs: NDArray[np.uint64],
        reasons: NDArray[np.uint8],
        blocked_ns: NDArray[np.uint64],
    ) -> NDArray[np.int64]:
        """Which of the words, for each goroutine.

        Args:
            pcs: Where they go on.
            reasons: Of their last park.
            blocked_ns: How long they were seen to be parked: who was has no other reason.
        """
        places, which = np.unique(pcs.astype(np.int64) - self._bias, return_inverse=True)
        code = np.array([self._stopped(place) for place in places.tolist()], np.int64)[which]
        parked = np.minimum(reasons.astype(np.int64), self._other - 1)
        return np.where((code == _PARKED) | (blocked_ns > 0), parked, self._other + code)


def _stopped(table: Pclntab, inlining: Inlining, at: int) -> int:
    """How a goroutine stopped that goes on there: behind a call, or where its function begins."""
    if table.is_start(np.array([at])).any():
        return _NEW
    return _STOPS.get(inlining.innermost(at - 1), _PREEMPTED)


def waits(
    records: NDArray[Any], reasons: Mapping[int, Reasons], tasks: TaskNames, groups: GroupNames
) -> pa.Table:
    """Rows of `waits`: how long goroutines waited for a P, were parked before, worlds stopped.

    Args:
        records: What the probes told.
        reasons: By the process's own number.
        tasks: Names of threads.
        groups: Names of cgroups.
    """
    import pyarrow as pa

    # Time to stop the world is part of the whole pause, so it makes no row of its own.
    stopping = (records["kind"] == _STW) & np.isin(records["reason"], _STOPPING)
    records = records[~stopping]
    blocked = np.flatnonzero(records["blocked_ns"] > 0)
    rows = np.concatenate([np.arange(len(records)), blocked])
    second = np.arange(len(rows)) >= len(records)
    spread = records[rows]
    run = spread["kind"] != _STW
    kind = np.where(run, np.where(second, Kind.GOROUTINE_BLOCKED, Kind.GOROUTINE), Kind.STW)
    end = spread["end_ns"].astype(np.int64)
    wait = spread["wait_ns"].astype(np.int64)
    comm, comms = tasks.comms_for(spread["tid"].astype(np.int32), end)
    group, paths = groups.paths_for(spread["cgroup"].astype(np.int64))
    tagged = tags.columns(spread["tag"])

    def number(name: str) -> pa.Array:
        values = spread[name].astype(np.int64)
        return pa.array(values, mask=values == 0)

    return pa.table(
        {
            "end_ns": pa.array(np.where(second, end - wait, end)),
            "wait_ns": pa.array(np.where(second, spread["blocked_ns"].astype(np.int64), wait)),
            "kind": KINDS.column(kind),
            "pid": pa.array(spread["pid"].astype(np.int32)),
            "tid": pa.array(spread["tid"].astype(np.int32)),
            "comm": named(comm.astype(np.int32), comms),
            "cpu": pa.array(spread["cpu"]),
            "cgroup_id": pa.array(spread["cgroup"].astype(np.int64)),
            "cgroup": named(group.astype(np.int32), paths),
            "policy": POLICY_NAMES.column(spread["policy"]),
            "prio": pa.array(spread["prio"]),
            "goid": number("goid"),
            "waker_goid": number("waker_goid"),
            "reason": _reasons(spread, run, reasons),
            "sampled": pa.array(
                np.full(len(rows), TRACKED_ONE_IN, np.uint16), mask=spread["kind"] != _RUN
            ),
            "stack_runtime": number("stack"),
            "waker_stack_runtime": number("waker_stack"),
            "flags": pa.array(
                np.where(spread["locked"] > 0, np.uint8(Flag.LOCKED_THREAD), np.uint8(0))
            ),
            **{name: tagged[name] for name in ("trace_id", "span_id", "id_source")},
        }
    )


def counted(records: NDArray[Any]) -> dict[int, int]:
    """How many waits of goroutines the probes told of each process, by its own number."""
    found = np.unique(records["target"][records["kind"] != _STW], return_counts=True)
    return dict(zip(*(part.tolist() for part in found), strict=True))


def _reasons(
    spread: NDArray[Any], run: NDArray[np.bool_], reasons: Mapping[int, Reasons]
) -> pa.Array:
    numbers = {word: number for number, word in enumerate(_STW_REASONS)}
    column = np.minimum(spread["reason"], len(_STW_REASONS) - 1).astype(np.int32)
    for target in np.unique(spread["target"]).tolist():
        mine = run & (spread["target"] == target)
        if target in reasons:
            own = [numbers.setdefault(word, len(numbers)) for word in reasons[target].words]
            which = reasons[target].of(*(spread[n][mine] for n in ("pc", "reason", "blocked_ns")))
            column[mine] = np.array(own, np.int32)[which]
    return named(column, list(numbers))


def frames(
    found: Iterable[tuple[GoProcess, Collection[int]]], cpu_ns: int = MAX_NAMING_NS
) -> Iterator[pa.Table]:
    """Rows of `frames`, piece by piece: function, file and line of each address of each process.

    Args:
        found: Processes and the addresses of each.
        cpu_ns: CPU time for files and lines; what comes later has only its function.
    """
    import pyarrow as pa

    enough = time.thread_time_ns() + cpu_ns
    rows = (
        _frame(process, address, placed=time.thread_time_ns() < enough)
        for process, addresses in found
        for address in sorted(addresses)
    )
    while piece := list(islice(rows, _PIECE)):
        yield pa.Table.from_pylist(piece, schema=arrow_schema("frames"))


def _frame(process: GoProcess, address: int, *, placed: bool) -> dict[str, Any]:
    # A return address is behind its call.
    where = process.table.locate(address - 1 - process.bias, placed=placed)
    outside = "[outside of Go code]"
    # Asked when it is there: the file may be written over while it is read.
    if not is_unchanged(process.image.data):
        where, outside = None, OVERWRITTEN
    return {
        "space": "go",
        "pid": process.pid,
        "program": process.program,
        "address": address,
        "name": where.function if where else outside,
        "module": process.identity.exe.rpartition("/")[2],
        "build_id": process.identity.build_id,
        "language": "go",
        "file": where.file or None if where else None,
        "line": where.line if where and 0 < where.line < 1 << 31 else None,
    }


Told = tuple[Identity, int | None, str, int, int | None]
"""A process: who, level reached, why no more, from when and until when (ns)."""


def targets(found: Sequence[Told]) -> pa.Table:
    """Rows of `targets`."""
    import pyarrow as pa

    rows = [
        {
            "pid": identity.pid,
            "runtime": "go",
            "version": identity.version,
            "exe": identity.exe,
            "build_id": identity.build_id,
            "level": level,
            "why": why,
            "from_ns": from_ns,
            "until_ns": until_ns,
        }
        for identity, level, why, from_ns, until_ns in found
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("targets"))


def edges(found: Sequence[tuple[int, int, bool]]) -> pa.Table:
    """Rows of `gauges`: when (ns) the probes of which process were on from then on, or off."""
    import pyarrow as pa

    ns, pids, on = zip(*found, strict=True)
    return pa.table(
        {
            "ns": pa.array(ns, pa.int64()),
            "pid": pa.array(pids, pa.int32()),
            "name": same("probes_on", len(ns)),
            "item": pa.nulls(len(ns), pa.int32()),
            "value": pa.array([float(v) for v in on], pa.float64()),
        }
    )


def sampled(
    pid: int,
    samples: Samples,
    shape: Shape,
    told: Callable[[Mapping[int, list[int]]], Rows],
    until_ns: float,
) -> Rows:
    """Rows of `gauges`, `samples` and `runtime_histograms` from what a sampler found.

    Args:
        pid: The process.
        samples: What was found.
        shape: Of its histograms.
        told: Rows for stacks, addresses by id.
        until_ns: The recording's end: a last reading may have begun before it was known.
    """
    import pyarrow as pa

    taken = (samples.gauges.popleft() for _ in range(len(samples.gauges)))
    if gauges := [gauge for gauge in taken if gauge[0] <= until_ns]:
        ns, names, items, values = zip(*gauges, strict=True)
        yield (
            "gauges",
            pa.table(
                {
                    "ns": pa.array(ns, pa.int64()),
                    "pid": pa.array([pid] * len(ns), pa.int32()),
                    "name": words(names),
                    "item": pa.array(items, pa.int32()),
                    "value": pa.array(values, pa.float64()),
                }
            ),
        )
    low, high = shape.bounds
    for _ in range(len(samples.histograms)):
        start, end, name, counts = samples.histograms.popleft()
        used = np.flatnonzero(counts > 0)
        yield (
            "runtime_histograms",
            pa.table(
                {
                    "start_ns": pa.array([start] * len(used), pa.int64()),
                    "end_ns": pa.array([end] * len(used), pa.int64()),
                    "pid": pa.array([pid] * len(used), pa.int32()),
                    "name": same(name, len(used)),
                    "low_ns": pa.array(low[used]),
                    "high_ns": pa.array([high[i] for i in used.tolist()], pa.int64()),
                    "count": pa.array(counts[used]),
                }
            ),
        )
    for _ in range(len(samples.scans)):
        scan = samples.scans.popleft()
        n = len(scan.counts)
        yield (
            "samples",
            pa.table(
                {
                    "ns": pa.array([scan.ns] * n, pa.int64()),
                    "source": same("wall", n),
                    "pid": pa.array([pid] * n, pa.int32()),
                    "goid": pa.array([g or None for g in scan.goids], pa.int64()),
                    "state": words(s for s, _ in scan.states),
                    "reason": words(r or None for _, r in scan.states),
                    "weight_ns": pa.array([scan.since_ns] * n, pa.int64()),
                    "count": pa.array(scan.counts, pa.int64()),
                    "stack_runtime": pa.array(scan.stack_ids, pa.int64()),
                }
            ),
        )
        yield from told(scan.stacks)
