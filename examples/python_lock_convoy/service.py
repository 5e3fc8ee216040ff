"""Worker threads that write to one journal under one lock.

Usage: service.py disease|cure SECONDS
"""

import sys
import threading
import time

lock = threading.Lock()
journal: list[str] = []


def flush() -> None:
    """Stands for the disk."""
    time.sleep(0.002)


def record_slowly(line: str) -> None:
    """Holds the lock while the disk works: everybody queues behind it."""
    with lock:
        journal.append(line)
        flush()
        journal.clear()


def record_quickly(line: str) -> None:
    """Takes what is there and writes it outside of the lock."""
    with lock:
        journal.append(line)
        journal.clear()
    flush()


def work(mode: str, until: float) -> None:
    """A worker thread."""
    record = record_slowly if mode == "disease" else record_quickly
    while time.monotonic() < until:
        time.sleep(0.004)
        record("done")


def main(mode: str, seconds: float) -> None:
    """Eight of them."""
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(mode, until)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main(sys.argv[1], float(sys.argv[2]))
