"""Processes that use up one CPU between them and sleep, and say when the kernel had them asleep.

    python dozers.py COUNT CPU SECONDS

At the end a line of JSON for each process: its pid and its sleeps, as begin and end in ns of
CLOCK_MONOTONIC. Only sleeps without an involuntary switch around them: those began when it says.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

BURN_NS, SLEEP_NS = 4_000_000, 40_000_000
MARGIN_NS = 100_000
"""From asking to sleep to being asleep."""


def doze(cpu: int, until: float) -> None:
    """Burns and sleeps in turns."""
    os.sched_setaffinity(0, {cpu})
    sleeps = []
    while time.monotonic() < until:
        enough = time.thread_time_ns() + BURN_NS
        while time.thread_time_ns() < enough:
            pass
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        asked = time.monotonic_ns()
        time.sleep(SLEEP_NS / 1e9)
        if resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw == before:
            sleeps.append((asked + MARGIN_NS, asked + SLEEP_NS))
    line = json.dumps({"pid": os.getpid(), "sleeps": sleeps}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())


def main() -> None:
    """Starts them and waits."""
    count, cpu, seconds = map(int, sys.argv[1:])
    until = time.monotonic() + seconds
    for _ in range(count):
        if os.fork() == 0:
            doze(cpu, until)
            os._exit(0)
    for _ in range(count):
        os.wait()


if __name__ == "__main__":
    main()
