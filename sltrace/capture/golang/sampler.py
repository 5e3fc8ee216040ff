"""Level 0: what the runtime keeps for itself, read from its memory on a timer. No probe at all."""

from __future__ import annotations

import random
import struct
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.golang import stackwalk
from sltrace.capture.golang.budget import cpu_ns
from sltrace.model import GOROUTINES_SCANNED
from sltrace.target.go.histograms import LATENCIES
from sltrace.target.go.memory import UnreadableError
from sltrace.target.go.offsets import (
    G_SCHED_PC,
    G_STACK_HI,
    MAX_PS,
    P_SCHEDTICK,
    P_STATUS,
    P_SYSCALLTICK,
    SCHED_BYTES,
    Offsets,
)
from sltrace.target.go.process import GoProcess

TICK_S = 0.05
SCAN_S = 1.0
_RANDOM = random.Random(1)
"""For all: processes are many, and each of its own is 2 kB. NumPy's takes 6 MB of modules."""
MAX_GOROUTINES = 1 << 22
"""Goroutines among which those that a scan looks at are chosen."""
_HOLD_NS = 5_000_000
_WAITING, _SYSCALL, _LEAKED = 4, 3, 10
_STATES = {1: "runnable", 2: "running", _SYSCALL: "syscall", _WAITING: "waiting", 8: "running",
           9: "preempted", _LEAKED: "waiting"}  # fmt: skip
"""Of those that are any: others are dead, or kept for the next call from C (11, since 1.26)."""
_STATUS_AND_GOID = np.dtype([("status", "<u4"), ("", "V4"), ("goid", "<u8")])
P_IDLE, P_RUNNING, P_SYSCALL, P_GCSTOP, P_SCHEDULER = 0, 1, 2, 3, 4
"""Values of the gauge p_state."""


@dataclass(frozen=True)
class Scan:
    """Goroutines at one moment, those alike as one.

    Attributes:
        ns: When.
        states: State and wait reason of each group.
        goids: The goroutine, where the group is one; else 0.
        counts: How many each stands for.
        stack_ids: Stack of each.
        since_ns: How long before was the last scan.
        stacks: The distinct stacks: addresses by id.
    """

    ns: int
    states: list[tuple[str, str]]
    goids: list[int]
    counts: list[int]
    stack_ids: list[int]
    since_ns: int
    stacks: dict[int, list[int]]


@dataclass
class Samples:
    """What one process's sampler found and the writer has not taken yet. Bounded."""

    gauges: deque[tuple[int, str, int | None, float]] = field(
        default_factory=lambda: deque(maxlen=1 << 18)
    )
    scans: deque[Scan] = field(default_factory=lambda: deque(maxlen=64))
    histograms: deque[tuple[int, int, str, NDArray[np.int64]]] = field(
        default_factory=lambda: deque(maxlen=1024)
    )


class Sampler:
    """Reads one process until told to stop or until it has ended."""

    def __init__(self, process: GoProcess) -> None:
        self.process = process
        self.samples = Samples()
        self.ended_ns: int | None = None
        self.failure = ""
        """Why it gave up though the process has not ended; empty if it did not."""
        self.noted = 0
        """Waits of goroutines that the runtime noted itself, but for the shortest: up to 64 ns."""
        self.cpu_ns = 0
        self.ticks = 0
        self._p_layout = _p_layout(process.offsets)
        self._g_layout = _g_layout(process.offsets)
        self._has_call_bp = process.offsets.g_syscallbp >= 0
        self._allp = 0, 0
        self._ps: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._held: dict[int, tuple[tuple[int, int, int], int]] = {}
        self._cpu_used_ns = -1
        self._baseline: dict[str, NDArray[np.int64]] = {}
        self._last_read = 0
        self._last_scan = 0

    def end(self, now: int) -> None:
        """There is no more to read: the process has ended, or become another program."""
        if self.ended_ns is None:
            self.ended_ns = now
            self.process.let_go()

    def tick(self, now: int) -> None:
        """The scheduler's state at this moment.

        Raises:
            UnreadableError: The process cannot be read any more.
        """
        process, o = self.process, self.process.offsets
        memory = process.memory
        self._note_standstill()
        head = memory.read(process.sched, SCHED_BYTES)

        def number(at: int) -> int:
            return int(struct.unpack_from("<i", head, at)[0])

        start, count = memory.words(process.variables.allp + process.bias, 2).tolist()
        if (start, count) != self._allp or not self._ps.all():
            # The runtime never lets go of a P, nor puts another in its place; where it makes more,
            # it has places for them first.
            self._ps = memory.words(start, min(count, MAX_PS))
            self._allp = start, count
        # Whole: one call for 2.5 kB a P takes less than three for what is used of them.
        whole, read = memory.pieces(self._ps, self._p_layout.itemsize)
        ps = whole.view(self._p_layout)[:, 0]
        local = ((ps["tail"] - ps["head"]) & 0x1FF) + (ps["next"] != 0)
        states, goids = self._p_states(ps, read)
        self._check_whose()
        put = self.samples.gauges.append
        for name, value in (
            ("gomaxprocs", count),
            ("idle_ps", number(o.s_npidle)),
            ("spinning_ms", number(o.s_nmspinning)),
            ("idle_ms", number(o.s_nmidle)),
            ("runq_global", number(o.s_runqsize)),
            ("runq_local", int(local.sum())),
            ("gc_waiting", head[o.s_gcwaiting] & 1),
        ):
            put((now, name, None, float(value)))
        ticks = zip(states, goids, ps["tick"].tolist(), ps["syscalls"].tolist(), strict=True)
        # The recorder may have lost its CPU since `now`.
        read_ns = max(now, time.monotonic_ns())
        for p, (state, goid, tick, syscalls) in enumerate(ticks):
            put((now, "p_state", p, float(state)))
            held = now - self._held_since(p, (goid, tick, syscalls), read_ns)
            if held >= _HOLD_NS:
                put((now, "p_goid", p, float(goid)))
                put((now, "p_hold_ns", p, float(held)))
        self.ticks += 1

    def _check_whose(self) -> None:
        """What was read so far is the process's own, unless it has become another program."""
        if not self.process.is_alive():
            raise UnreadableError("it has ended")

    def _p_states(self, ps: NDArray[Any], read: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
        """State of each P, and the goroutine on it (0: none)."""
        o, status = self.process.offsets, ps["status"]
        gs = self._within(ps["m"], o.m_curg, 8).view("<u8")[:, 0]
        g = self._within(gs, o.g_status, 16).view(_STATUS_AND_GOID)[:, 0]
        g_status, goid = g["status"] & 0xFFF, g["goid"]
        state = np.where(status == 1, np.where(gs > 0, P_RUNNING, P_SCHEDULER), status)
        # Since 1.26 a P in a system call is running, and only its goroutine tells.
        state = np.where((state == P_RUNNING) & (g_status == _SYSCALL), P_SYSCALL, state)
        state = np.where(read, np.minimum(state, P_SCHEDULER), P_IDLE)
        goid = np.where((state == P_RUNNING) | (state == P_SYSCALL), goid, 0)
        return state.tolist(), [int(g) if g < 1 << 48 else 0 for g in goid.tolist()]

    def _within(self, structures: NDArray[np.uint64], offset: int, size: int) -> NDArray[np.uint8]:
        """Bytes at an offset in each; zeros where there is none or it cannot be read."""
        found = np.zeros((len(structures), size), np.uint8)
        there = np.flatnonzero(structures)
        found[there], _ = self.process.memory.pieces(structures[there] + np.uint64(offset), size)
        return found

    def _note_standstill(self) -> None:
        """Begins to count holds anew where no thread of the process ran since the last reading.

        It is stopped by a signal or a freezer, or its quota is used up: perhaps since before the
        recording or beyond its end, so that no wait tells.
        """
        try:
            used_ns = cpu_ns(self.process.pid)
        except OSError as err:
            raise UnreadableError("it has ended") from err
        if used_ns == self._cpu_used_ns:
            self._held.clear()
        self._cpu_used_ns = used_ns

    def _held_since(self, p: int, by: tuple[int, int, int], read_ns: int) -> int:
        """Since when P `p` has been on one goroutine, or in one system call, without a break.

        Args:
            p: Its number.
            by: Goroutine, 0 for none, and how often it went on to another and made a system call.
            read_ns: When that was known at the latest.
        """
        known, since = self._held.get(p, (None, 0))
        if known != by or not by[0]:
            self._held[p] = by, read_ns
            return read_ns
        return since

    def scan(self, now: int) -> None:
        """The histograms since the last scan, and the goroutines.

        Raises:
            UnreadableError: The process cannot be read any more.
        """
        memory, words = self.process.memory, self.process.offsets.histogram.words
        found = {n: memory.words(at, words) for n, at in self.process.histograms.items()}
        # The last may be taken for one of a moment before, which is when the recording ended.
        since = max(now - self._last_scan, 0) if self._last_scan else round(SCAN_S * 1e9)
        self._last_scan = now
        self._take_histograms(now, found)
        goroutines = self._goroutines(now, since)
        self._check_whose()
        self.samples.scans.append(goroutines)

    def _take_histograms(self, now: int, found: Mapping[str, NDArray[np.uint64]]) -> None:
        """What was counted since they were read last."""
        self._check_whose()
        for name, read in found.items():
            values = read.astype(np.int64)
            before = self._baseline.get(name)
            self._baseline[name] = values
            if before is not None and (values != before).any():
                until = max(now, self._last_read)
                counts = values - before
                self.samples.histograms.append((self._last_read, until, name, counts))
                if name == LATENCIES:
                    self.noted += int(counts[1 : self.process.offsets.histogram.buckets].sum())
        self._last_read = now

    def _goroutines(self, now: int, since: int) -> Scan:
        process = self.process
        memory, v = process.memory, process.variables
        # In this order, as it only grows, and moves when it does.
        count = min(int(memory.words(v.allgs_len + process.bias, 1)[0]), MAX_GOROUTINES)
        start = int(memory.words(v.allgs + process.bias, 1)[0])
        pointers = memory.words(start, count)
        chosen = pointers
        if count > GOROUTINES_SCANNED:
            chosen = pointers[sorted(_RANDOM.sample(range(count), GOROUTINES_SCANNED))]
        blocks, read = memory.pieces(chosen, self._g_layout.itemsize)
        gs = blocks.view(self._g_layout)[:, 0]
        alive = read & np.isin(gs["status"] & 0xFFF, list(_STATES))
        gs = gs[alive]
        status = gs["status"] & 0xFFF
        syscall = status == _SYSCALL
        off_thread = (status == 1) | (status == _WAITING) | (status >= 9)
        call_pc = gs["call_pc"]
        call_bp = gs["call_bp"] if self._has_call_bp else np.zeros_like(call_pc)
        # A running goroutine's registers are its thread's: only its function is known here.
        pc = np.where(
            off_thread, gs["sched_pc"], np.where(syscall & (call_pc > 0), call_pc, gs["start_pc"])
        )
        frame = np.where(off_thread, gs["sched_bp"], np.where(syscall, call_bp, 0))
        stacks = stackwalk.walk(memory, pc, frame, gs["stack_hi"])
        ids = stacks.ids(process.pid, process.program)
        reason = np.where(np.isin(status, (_WAITING, _LEAKED)), gs["reason"], 0)
        groups = np.stack([ids, status.astype(np.uint64), reason.astype(np.uint64)], 1)
        distinct, first, counts = np.unique(groups, axis=0, return_index=True, return_counts=True)
        scale = count / GOROUTINES_SCANNED if count > GOROUTINES_SCANNED else 1.0
        goids = gs["goid"]
        names = process.reasons
        return Scan(
            ns=now,
            since_ns=since,
            states=[
                (_STATES[int(s)], names[int(r)] if r < len(names) else "")
                for _, s, r in distinct.tolist()
            ],
            goids=[
                int(goids[i]) if c == 1 and goids[i] < 1 << 48 else 0
                for i, c in zip(first.tolist(), counts.tolist(), strict=True)
            ],
            counts=[round(c * scale) for c in counts.tolist()],
            stack_ids=[int(i) for i in distinct[:, 0].tolist()],
            stacks={
                int(ids[i]): stacks.addresses[i, : stacks.depth[i]].tolist() for i in first.tolist()
            },
        )


@cache
def _p_layout(o: Offsets) -> np.dtype[Any]:
    """What is used of a P: `head` and `tail` of its queue, `next` to run."""
    fields = {
        "status": ("<u4", P_STATUS),
        "tick": ("<u4", P_SCHEDTICK),
        "syscalls": ("<u4", P_SYSCALLTICK),
        "m": ("<u8", o.p_m),
        "head": ("<u4", o.p_runqhead),
        "tail": ("<u4", o.p_runqhead + 4),
        "next": ("<u8", o.p_runnext),
    }
    return _layout(fields, o.p_runnext + 8)


@cache
def _g_layout(o: Offsets) -> np.dtype[Any]:
    """What is used of a goroutine; `call_bp` only where the runtime keeps it."""
    fields = {
        "stack_hi": ("<u8", G_STACK_HI),
        "sched_pc": ("<u8", G_SCHED_PC),
        "sched_bp": ("<u8", o.g_sched_bp),
        "call_pc": ("<u8", o.g_syscallsp + 8),
        "status": ("<u4", o.g_status),
        "goid": ("<u8", o.g_goid),
        "reason": ("u1", o.g_waitreason),
        "start_pc": ("<u8", o.g_startpc),
    }
    if o.g_syscallbp >= 0:
        fields["call_bp"] = ("<u8", o.g_syscallbp)
    return _layout(fields, o.g_startpc + 8)


def _layout(fields: dict[str, tuple[str, int]], size: int) -> np.dtype[Any]:
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype(
        {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size}
    )
