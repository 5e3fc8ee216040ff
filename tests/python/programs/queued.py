"""Workers that wait for work in a queue.SimpleQueue, which has no frame of its own."""

import queue
import sys
import threading
import time

jobs = queue.SimpleQueue()


def serve(job):
    time.sleep(job)


def worker():
    while True:
        serve(jobs.get())


for _ in range(8):
    threading.Thread(target=worker, daemon=True).start()
print(flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    jobs.put(0.001)
    time.sleep(0.01)
