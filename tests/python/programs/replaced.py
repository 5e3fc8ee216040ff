"""Workers that are replaced each 0.9 s. In each a thread computes, for which another waits.

When each was born (CLOCK_MONOTONIC, ns) and its pid are printed once it has ended.
"""

import os
import sys
import threading
import time


def compute(until):
    while time.monotonic() < until:
        pass


def nap(until):
    while time.monotonic() < until:
        time.sleep(0.02)


def work():
    until = time.monotonic() + 0.9
    threads = [threading.Thread(target=target, args=(until,)) for target in (compute, nap)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)


print(os.getpid(), flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    born = time.monotonic_ns()
    worker = os.fork()
    if worker == 0:
        work()
    os.waitpid(worker, 0)
    print(born, worker, flush=True)
