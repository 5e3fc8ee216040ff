"""Scheduling priorities of the recorder's threads."""

from __future__ import annotations

import contextlib
import os
import resource

_LIMITS = ((resource.RLIMIT_RTPRIO, 1), (resource.RLIMIT_NICE, 40))
_NICE = 5
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


class Deferrable:
    """Priority of a thread that can wait, but only so long: as urgent as reading, or below normal.

    The writing thread works in bursts of 25 ms twice a second (a Python service with 5 000
    waits/s). At a real-time priority these delayed the service by 700 ms in 8 s, up to 44 ms at
    once; like this by 250 ms, and 6 ms. But it holds the interpreter's lock now and then, and on a
    crowded machine it would keep the reader from it while it waits for a CPU.

    Args:
        thread: Its tid; it has the reader's priority so far.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._urgent = True
        self._load = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        self._crowd = _CROWDED * (os.cpu_count() or 1)

    def adjust(self, *, behind: bool) -> None:
        """Looks how many threads want a CPU; `behind` makes it urgent whatever they are."""
        urgent = behind or self._runnable() > self._crowd
        if urgent != self._urgent:
            self._urgent = urgent
            if urgent:
                _raise(self._thread)
            else:
                lower(self._thread, _NICE)

    def _runnable(self) -> int:
        # 0.31 0.42 0.50 runnable/all last-pid
        return int(os.pread(self._load, 128, 0).split()[3].partition(b"/")[0])

    def close(self) -> None:
        """Leaves the thread as it is."""
        os.close(self._load)
