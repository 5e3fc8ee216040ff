"""The words of the trace: kinds of wait, policies, waker contexts and flags.

Numbers are those the probes write (probes/wait_record.h and the kernel's uapi/linux/sched.h);
the trace file holds the names.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Kind(IntEnum):
    """What was waited for."""

    RUNQ_WAKEUP = 0
    """Woken (or new), on the run queue, waiting for a CPU: run-queue latency."""
    RUNQ_PREEMPT = 1
    """Was running, lost the CPU while still runnable, waiting to get one back."""
    THROTTLED = 2
    """Runnable, but the cgroup's CPU quota was used up."""
    BLOCKED = 3
    """Off the CPU and not runnable: sleeping, locking, doing I/O."""
    GOROUTINE = 4
    """A goroutine that is runnable, waiting for a P."""
    STW = 5
    """The world of a Go process stopped, for its garbage collector or otherwise."""
    GIL = 6
    """A Python thread waiting for the global interpreter lock."""
    LOOP = 7
    """One iteration of an event loop: all else scheduled on the loop waits for it."""

    GOROUTINE_BLOCKED = 8
    """A goroutine that is parked: channel, lock, network, timer ..."""

    @property
    def label(self) -> str:
        """Name in the trace file, e.g. `runq_wakeup`."""
        return self.name.lower()


SCHEDULER_KINDS = (Kind.RUNQ_WAKEUP, Kind.RUNQ_PREEMPT, Kind.THROTTLED, Kind.BLOCKED)
"""The kinds the kernel's scheduler is the source of, in the order of the probes' histograms."""

SCHEDULER = frozenset(k.label for k in SCHEDULER_KINDS)
"""Their names in the trace file."""

RUNQ_KINDS = (Kind.RUNQ_WAKEUP.label, Kind.RUNQ_PREEMPT.label)
"""The kinds that make up run-queue latency: runnable, allowed to run, and no CPU."""

RUNQ = "runq"
"""Name of the total over them."""

OTHERS = "all others"
"""What has no line of its own, together: in the terminal, on the page and in its data."""

BLOCKED_KINDS = (Kind.BLOCKED.label, Kind.GOROUTINE_BLOCKED.label)
"""Asleep: that may be what a request came for."""

GO_PROBE_KINDS = frozenset((Kind.GOROUTINE.label, Kind.GOROUTINE_BLOCKED.label, Kind.STW.label))
"""The kinds that probes in Go programs tell of, for the part of the time that their budget pays."""

LOST_KINDS = tuple(k.label for k in Kind if k.label not in BLOCKED_KINDS and k is not Kind.LOOP)
"""The kinds that are time lost: what waited could have gone on. An iteration of an event loop is
none: it is made of running and of waits that are rows of their own."""

COMM_BYTES = 15
"""Of a thread's name the kernel keeps so many (TASK_COMM_LEN less its end)."""

UNKNOWN_NAME = "[unknown]"
"""What a frame is called whose function is not known."""

PID_SPACE = 1 << 22
"""Process ids of a machine are below this (the kernel's PID_MAX_LIMIT). In a merged trace those of
machine N, from 0, are N times as much higher."""

POLICIES = {0: "OTHER", 1: "FIFO", 2: "RR", 3: "BATCH", 5: "IDLE", 6: "DEADLINE", 7: "EXT"}
"""SCHED_* number to name (uapi/linux/sched.h)."""


class WakerContext(IntEnum):
    """Where the wakeup came from: a task's own call, or an interrupt that borrowed its context."""

    NONE = 0
    TASK = 1
    SOFTIRQ = 2
    HARDIRQ = 3

    @property
    def label(self) -> str:
        """Name in the trace file; empty for NONE."""
        return "" if self is WakerContext.NONE else self.name.lower()


class IdSource(IntEnum):
    """Where a trace id was found."""

    NONE = 0
    PPROF_LABELS = 1
    OTEL_SDK = 2
    CONTEXTVARS = 3
    THREAD_CONTEXT = 4
    OBI = 5

    @property
    def label(self) -> str:
        """Name in the trace file; empty for NONE."""
        return "" if self is IdSource.NONE else self.name.lower()


class Reason(IntEnum):
    """What a thread that blocked was waiting for, where a runtime that is looked into tells."""

    NONE = 0
    GIL = 1
    LOCK = 2
    SLEEP = 3
    POLL = 4
    IO = 5
    PROCESS = 6
    FAULT = 7
    SIGNAL = 8
    MEMORY = 9

    @property
    def label(self) -> str:
        """Name in the trace file; empty for NONE."""
        return "" if self is Reason.NONE else self.name.lower()


class Flag(IntFlag):
    """Facts about one wait (column `flags`)."""

    CENSORED = 1
    """Began before the recording: `wait_ns` is a lower bound."""
    FIRST_RUN = 2
    """The first time this task ran."""
    MIGRATED_QUEUED = 4
    """Moved to another CPU's queue while it waited."""
    CULPRIT_PARTIAL = 8
    """Over an eighth of the wait is further back than the probe remembers who ran."""
    YIELDED = 16
    """Gave the CPU up or was rescheduled on return to user space, not preempted in the kernel."""
    FOREIGN_WAKE = 32
    """The waker is unknown: it woke the task before the recording, or its event was lost."""
    MOVED_ASLEEP = 64
    """Moved to another CPU's queue while it slept: since 6.12 (152e11f6df29) sleepers stay on the
    queue for a while, and the kernel's run delay counts their sleep after such a move."""
    LOCKED_THREAD = 128
    """A goroutine that is locked to its thread (runtime.LockOSThread)."""


GOROUTINES_SCANNED = 2048
"""Goroutines whose stacks one scan reads: where there are more, a random choice, scaled."""

STATES = {
    0x0: "R",
    0x1: "S",
    0x2: "D",
    0x4: "T",
    0x8: "t",
    0x10: "X",
    0x20: "Z",
    0x40: "P",
    0x402: "I",
    0x1000: "D",
    0x8000: "D",
}
"""Kernel task state at switch-out to its letter: the highest of these numbers all of whose bits are
set, as the kernel's __task_state_index tells perf and ps. 0x402 is TASK_IDLE, 0x1000
TASK_RTLOCK_WAIT, 0x8000 TASK_FROZEN (include/linux/sched.h)."""
