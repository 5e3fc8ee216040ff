"""Forks a child each 0.1 s, sixty at most, that naps until its parent is gone."""

import os
import sys
import time


def nap_of_a_child():
    time.sleep(0.03)


parent = os.getpid()
print(parent, flush=True)
for _ in range(60):
    if os.fork() == 0:
        while os.getppid() == parent:
            nap_of_a_child()
        os._exit(0)
    time.sleep(0.1)
time.sleep(float(sys.argv[1]))
