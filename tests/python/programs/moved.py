"""Collects garbage on CPUs that others fill, and is moved from one to the other meanwhile."""

import contextlib
import gc
import os
import sys
import time

until = time.monotonic() + float(sys.argv[1])
cpus = sorted(os.sched_getaffinity(0))[:2]
for cpu in cpus:
    if not os.fork():
        os.sched_setaffinity(0, [cpu])
        while time.monotonic() < until and os.getppid() != 1:
            pass
        os._exit(0)

collector = os.getpid()
if not os.fork():
    while time.monotonic() < until and os.getppid() == collector:
        for cpu in cpus:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(collector, [cpu])
            time.sleep(0.004)
    os._exit(0)
kept = [[{}] for _ in range(200_000)]
gc.disable()
print(flush=True)
while time.monotonic() < until:
    gc.collect()
    time.sleep(0.001)
