"""How large the probes' tables are: bounded, and by what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

from sltrace.errors import UsageError

_RING_TOTAL = 1 << 19
_RING_MIN = 1 << 8
_RING_MAX = 1 << 16
_TASKS_MIN = 1 << 15
_TASKS_MAX = 1 << 19


def power_of_two(value: int) -> int:
    """The smallest power of two that is at least `value`."""
    return 1 << max(value - 1, 0).bit_length()


def ring_records(cpus: int, record_bytes: int, wanted_bytes: int = 0) -> int:
    """Records of one CPU's ring: as many as fit in what is wanted, or if 0, 65,536 up to 8 CPUs.

    That is 12 MiB, and 0.4 s at 150 000 waits/s on one CPU. At 256 CPUs it is 2,048 records.

    Raises:
        UsageError: More is wanted than the machine can spare.
    """
    if not wanted_bytes:
        return _usual_records(cpus)
    return max(_RING_MIN, _power_within(_affordable(cpus, wanted_bytes) // record_bytes))


def ring_bytes(cpus: int, wanted_bytes: int = 0) -> int:
    """The same where a ring is one of the kernel's ring buffers: 8 MiB, to 256 KiB at 256 CPUs."""
    if wanted_bytes:
        return _power_within(_affordable(cpus, wanted_bytes))
    return _usual_records(cpus) * 128


def _usual_records(cpus: int) -> int:
    return max(_RING_MIN, _power_within(min(_RING_MAX, _RING_TOTAL // cpus)))


def _affordable(cpus: int, wanted: int) -> int:
    """The bytes that are wanted of each CPU; in all they may be a quarter of the memory."""
    if (most := _memory() // 4 // cpus) < wanted:
        asked, left = (wanted >> 10, most >> 10) if most < 1 << 20 else (wanted >> 20, most >> 20)
        unit = "K" if most < 1 << 20 else "M"
        raise UsageError(
            f"--buffer: {cpus} rings of {asked} {unit}iB are more than a quarter of the memory",
            f"give at most {left}{unit}",
        )
    return wanted


def task_slots() -> int:
    """Slots of the task table (192 bytes each): at least four per thread there is now."""
    # 0.31 0.42 0.50 runnable/all last-pid; to count them in /proc fails where one ends meanwhile.
    threads = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    limit = power_of_two(int(Path("/proc/sys/kernel/pid_max").read_text()))
    return min(limit, max(_TASKS_MIN, min(_TASKS_MAX, power_of_two(8 * threads))))


def histogram_slots(cpus: int) -> int:
    """Slots of 4 KiB that each CPU has for cgroups and policies: 256, or 128 at 256 CPUs.

    All are at most a 200th of the memory; but each CPU has 32, as those that may come count, too.
    """
    affordable = min(_memory() // 200 // 4096, 1 << 15)
    return _power_within(min(256, max(32, affordable // cpus)))


def _power_within(value: int) -> int:
    """The largest power of two that is at most `value`, and at least 1."""
    return 1 << (max(value, 1).bit_length() - 1)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
