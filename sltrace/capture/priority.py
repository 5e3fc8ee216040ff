"""The recorder's scheduling priority."""

from __future__ import annotations

import contextlib
import os


def raise_for_reading() -> None:
    """A starved recorder loses waits.

    Among 700 runnable threads even nice -20 was kept off the CPU for 1.8 s (measured), so it asks
    for the lowest real-time priority while it reads and writes. The threads it starts inherit
    that; a command that is recorded was started before.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        # A v1 cpu cgroup without real-time budget refuses; so does a container.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)


def lower() -> None:
    """Takes that back: what is left, naming symbols above all, nobody waits for."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
