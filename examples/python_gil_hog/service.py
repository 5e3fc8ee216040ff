"""Handlers that should answer in milliseconds, beside a computation in pure Python.

Usage: service.py disease|cure SECONDS
"""

import subprocess
import sys
import threading
import time


def compute(until: float) -> int:
    """The nightly report somebody put into the web process."""
    total = 0
    while time.monotonic() < until:
        for i in range(50_000):
            total += i * i
    return total


def handle() -> None:
    """One request: wait for the database, then format the answer."""
    time.sleep(0.004)
    ",".join(str(i) for i in range(200))


def serve(until: float) -> None:
    """A handler thread."""
    while time.monotonic() < until:
        handle()


def main(mode: str, seconds: float) -> None:
    """Runs four handlers and the computation."""
    until = time.monotonic() + seconds
    if mode == "compute":
        compute(until)
        return
    threads = [threading.Thread(target=serve, args=(until,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    if mode == "disease":
        compute(until)
    else:
        subprocess.run([sys.executable, __file__, "compute", str(seconds)], check=True)
    for thread in threads:
        thread.join()


main(sys.argv[1], float(sys.argv[2]))
