"""Request threads that share a pool of connections, which a semaphore guards.

Usage: service.py disease|cure SECONDS
"""

import sys
import threading
import time

THREADS = 12


def query() -> None:
    """Stands for the database."""
    time.sleep(0.005)


def ask(pool: threading.Semaphore) -> None:
    """With a connection of the pool, once there is one."""
    with pool:
        query()


def work(pool: threading.Semaphore, until: float) -> None:
    """A request thread."""
    while time.monotonic() < until:
        time.sleep(0.005)
        ask(pool)


def main(mode: str, seconds: float) -> None:
    """Twelve of them, and two connections or enough."""
    until = time.monotonic() + seconds
    pool = threading.BoundedSemaphore(2 if mode == "disease" else THREADS)
    threads = [threading.Thread(target=work, args=(pool, until)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main(sys.argv[1], float(sys.argv[2]))
