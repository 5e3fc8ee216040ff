"""What machine a figure is from, and what else it was doing meanwhile."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS = (3, 4)  # idle and iowait
_GUEST_FIELDS = 8  # guest time from here on is in user time already


def describe() -> dict[str, str | int]:
    """CPU, kernel and date, for the head of a result."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            model = value.strip()
            break
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def busy_seconds() -> float:
    """CPU seconds this machine has spent on anything so far, steal included."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    ticks = [int(f) for f in fields[:_GUEST_FIELDS]]
    return sum(t for i, t in enumerate(ticks) if i not in _IDLE_FIELDS) * _TICK_S


def process_seconds(pid: int) -> float:
    """CPU seconds (user and system) of a running process, all threads; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


@dataclass(frozen=True)
class Spent:
    """CPU seconds (user and system) and wall seconds of a command."""

    cpu_s: float
    wall_s: float


def run_measured(command: list[str]) -> Spent:
    """Runs a command to its end, silently, and says what it cost, its children included.

    Raises:
        RuntimeError: It failed.
    """
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    start = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - start
    os.close(null)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return Spent(usage.ru_utime + usage.ru_stime, wall)
