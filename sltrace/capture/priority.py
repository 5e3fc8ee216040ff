"""Scheduling priorities of the recorder's threads."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import resource

_LIMITS = ((resource.RLIMIT_RTPRIO, 1), (resource.RLIMIT_NICE, 40))
_NICE, _LOWEST = 5, 19
_LONG_SLICE_NS = 100_000_000
"""The longest there is."""
_SYS_SCHED_SETATTR = 314  # arch/x86/entry/syscalls/syscall_64.tbl
_CROWDED = 3
"""Runnable threads a CPU from which on a thread of normal priority is not sure to run soon."""


def raise_for_reading() -> None:
    """A starved reader loses waits.

    Among 700 runnable threads even nice -20 was kept off the CPU for 1.8 s (measured), so the
    calling thread asks for the lowest real-time priority. Threads it starts inherit that; a command
    that is recorded was started before.
    """
    # So that it can be asked for again without a capability.
    for limit, value in _LIMITS:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))
    _raise(0)


def needs_capability() -> bool:
    """Whether raising priorities again takes CAP_SYS_NICE; else this process's limits allow it."""
    return any(resource.getrlimit(limit)[0] < value for limit, value in _LIMITS)


def lower(thread: int = 0, nice: int = 0) -> None:
    """Takes that back, for the calling thread or another of this process."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, thread, nice)


def _raise(thread: int) -> None:
    try:
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))
    except OSError:
        # A v1 cpu cgroup without real-time budget refuses; so does a container.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, -20)


class Urgency(enum.Enum):
    """Of a thread that can wait, but only so long."""

    NOW = enum.auto()
    """As urgent as reading."""
    SOON = enum.auto()
    """Below normal, and sure of its share."""
    LATER = enum.auto()
    """Whatever else wants the CPU gets it at once."""


class Deferrable:
    """Priority of the writing thread.

    It works in bursts of 15 to 25 ms twice a second (a Python service with 5 000 waits/s). At a
    real-time priority these delayed the service by 700 ms in 8 s, up to 44 ms at once; at nice 5 by
    250 ms, and 6 ms, and made the 99th percentile of its requests 16 % longer; at the lowest, with
    a long slice, 3 %. But it holds the interpreter's lock now and then, and there it would keep the
    reader from it while it waits for a CPU: for LATER the rings must have room for that.

    Args:
        thread: Its tid; it has the reader's priority so far.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._urgency = Urgency.NOW
        self._load = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        self._crowd = _CROWDED * (os.cpu_count() or 1)

    def adjust(self, urgency: Urgency) -> None:
        """Makes it so urgent; where many threads want a CPU it is urgent anyhow."""
        if self._runnable() > self._crowd:
            urgency = Urgency.NOW
        if urgency == self._urgency:
            return
        self._urgency = urgency
        if urgency is Urgency.NOW:
            _raise(self._thread)
        else:
            lower(self._thread, _NICE)
            if urgency is Urgency.LATER:
                _give_way(self._thread)

    def _runnable(self) -> int:
        # 0.31 0.42 0.50 runnable/all last-pid
        return int(os.pread(self._load, 128, 0).split()[3].partition(b"/")[0])

    def close(self) -> None:
        """Leaves the thread as it is."""
        os.close(self._load)


class _SchedAttr(ctypes.Structure):
    """struct sched_attr (include/uapi/linux/sched/types.h), its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def _give_way(thread: int) -> None:
    """The lowest nice value, and the longest slice.

    Since 6.12 (857b158dc5e8, 85e511df3cec) whoever is woken and has a shorter slice takes the CPU
    at once; older kernels take no notice of it.
    """
    attr = _SchedAttr(
        size=ctypes.sizeof(_SchedAttr), policy=os.SCHED_OTHER, nice=_LOWEST, runtime=_LONG_SLICE_NS
    )
    ctypes.CDLL(None).syscall(_SYS_SCHED_SETATTR, thread, ctypes.byref(attr), 0)
