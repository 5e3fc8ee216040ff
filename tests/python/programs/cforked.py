"""A child that C forked: CPython was not told."""

import ctypes
import sys
import time


def nap_of_the_child():
    time.sleep(0.02)


until = time.monotonic() + float(sys.argv[1])
child = ctypes.PyDLL(None).fork() == 0
if not child:
    print("ready", flush=True)
while time.monotonic() < until:
    if child:
        nap_of_the_child()
    else:
        time.sleep(0.1)
