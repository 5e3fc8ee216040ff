"""Burns CPU time in known shares: three parts in one line, one in another."""

import json
import os
import sys
import time


def spin(n):
    x = 0
    for _ in range(n):
        x += 1
    return x


def main(until):
    spent = {"three": 0, "one": 0, "cpu": []}
    while time.monotonic() < until:
        begin = time.thread_time_ns()
        for _ in range(30):
            spin(2000)  # three
        middle = time.thread_time_ns()
        for _ in range(10):
            spin(2000)  # one
        end = time.thread_time_ns()
        spent["three"] += middle - begin
        spent["one"] += end - middle
        spent["cpu"].append((time.monotonic_ns(), time.process_time_ns()))
    return spent


print(os.getpid(), flush=True)
spent = main(time.monotonic() + float(sys.argv[2]))
with open(sys.argv[1], "w") as out:
    json.dump(spent, out)
