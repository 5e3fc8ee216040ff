"""A worker that unpacks its jobs and computes; who hands one over wants the GIL back at once."""

import queue
import threading
import time

jobs = queue.SimpleQueue()


def compute():
    """In one call of C, that lets nobody else have the GIL."""
    sum(range(500_000))


def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def unpack():
    spin(0.001)


def work():
    while jobs.get():
        unpack()
        compute()


def hand_over():
    while True:
        jobs.put(True)
        time.sleep(0.00005)
        time.sleep(0.01)


threading.Thread(target=work, daemon=True).start()
threading.Thread(target=hand_over, daemon=True).start()
print("ready", flush=True)
time.sleep(60)
