"""Makes garbage in cycles, and logs when the collector ran."""

import gc
import json
import os
import signal
import sys
import time

log = []
begun = 0


def note(phase, info):
    global begun
    if phase == "start":
        begun = time.monotonic_ns()
    else:
        log.append((begun, time.monotonic_ns()))


class Node:
    def __init__(self):
        self.me = self
        self.some = [{} for _ in range(3)]


kept = [Node() for _ in range(20_000)]
gc.callbacks.append(note)


def end(*_):
    with open(sys.argv[1], "w") as out:
        json.dump(log, out)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
print(os.getpid(), flush=True)
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    [Node() for _ in range(2_000)]
    gc.collect()
    time.sleep(0.02)
