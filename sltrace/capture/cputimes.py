"""What each CPU did during the recording, as the kernel counts it in /proc/stat.

The waits do not tell steal (time the hypervisor gave to others) from running, nor how idle a CPU
was: these counters do, to a clock tick.
"""

from __future__ import annotations

import os
from pathlib import Path

NAMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""Columns of /proc/stat, in order; guest time is part of user and nice."""

CpuTimes = dict[str, dict[str, int]]
"""By CPU number and name, ns."""


def read_cpu_times() -> CpuTimes:
    """Since boot; empty where /proc/stat cannot be read."""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    times = {}
    for line in lines:
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = zip(NAMES, values, strict=False)
            times[name.removeprefix("cpu")] = {n: int(v) * tick_ns for n, v in ticks}
    return times


def since(before: CpuTimes) -> CpuTimes:
    """What was added since; CPUs that came or went meanwhile are left out."""
    return {
        cpu: {name: max(0, value - before[cpu].get(name, 0)) for name, value in now.items()}
        for cpu, now in read_cpu_times().items()
        if cpu in before
    }
