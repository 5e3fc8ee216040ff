"""Processes that use up one CPU between them and sleep, and say when the kernel had them asleep.

    python dozers.py COUNT CPU SECONDS

Whoever goes to sleep after more than its share of the CPU stays on its queue, asleep, since 6.12:
one in seven of those on it here. At the end a line of JSON for each: its pid and its sleeps, as
begin and end in ns of CLOCK_MONOTONIC. Only sleeps without an involuntary switch around them: those
began when it says.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time

BURN_NS = 4_000_000
SLEEP_NS = (90_000_000, 110_000_000)
"""At random, so that they do not sleep all at once."""
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
        length = random.randint(*SLEEP_NS)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
        asked = time.monotonic_ns()
        time.sleep(length / 1e9)
        if resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw == before:
            sleeps.append((asked + MARGIN_NS, asked + length))
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
