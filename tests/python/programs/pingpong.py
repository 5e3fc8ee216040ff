"""Two threads on one CPU that wake each other; prints CPU time and round trips so far."""

import os
import sys
import threading
import time

DEPTH, SECONDS = int(sys.argv[1]), float(sys.argv[2])
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.setrecursionlimit(DEPTH + 1000)
there, back = os.pipe(), os.pipe()
trips = 0


def descend(depth, then):
    return descend(depth - 1, then) if depth > 1 else then()


def ping():
    global trips
    while True:
        os.write(there[1], b".")
        os.read(back[0], 1)
        trips += 1


def pong():
    while True:
        os.read(there[0], 1)
        os.write(back[1], b".")


for each in (ping, pong):
    threading.Thread(target=descend, args=(DEPTH, each), daemon=True).start()
print(os.getpid(), flush=True)
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    sys.stdin.readline()
    print(time.process_time_ns(), trips, flush=True)
os._exit(0)
