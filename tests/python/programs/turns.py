"""Threads that queue for the GIL: many that hold it shortly, and one that keeps it.

Arguments: seconds, and the file for [start, end] of each long hold in ns of CLOCK_MONOTONIC. Prints
the thread that keeps it.
"""

import json
import sys
import threading
import time

SHORT, PERIOD_S = 20, 1
holds = []


def take(after_ms, count):
    """Wants the GIL so long after each period's begin, for one call of C that lets nobody else
    have it."""
    while True:
        time.sleep(PERIOD_S - time.monotonic() % PERIOD_S + after_ms / 1000)
        began = time.monotonic_ns()
        sum(range(count))
        if threading.current_thread() is keeper:
            holds.append([began, time.monotonic_ns()])


shorts = [threading.Thread(target=take, args=(0, 300_000), daemon=True) for _ in range(SHORT)]
keeper = threading.Thread(target=take, args=(2, 10_000_000), daemon=True)
for thread in [*shorts, keeper]:
    thread.start()
print(keeper.native_id, flush=True)
time.sleep(float(sys.argv[1]))
with open(sys.argv[2], "w") as file:
    json.dump(holds, file)
print("done", flush=True)
time.sleep(30)
