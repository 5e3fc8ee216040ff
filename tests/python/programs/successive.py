"""One short thread after the other holds the GIL while the first thread wants it.

Arguments: seconds, and `forked` to do so in a child that C forks, or `wrapped` for threads whose
numbers are below that of their process, as the kernel begins anew at its limit. SIGUSR1 ends it
earlier. Prints its pid and, at the end, [tid, start, end] of each thread as JSON: numbers of the
namespace that /proc is of, and ns of CLOCK_MONOTONIC.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

numbers = list(range(60_000))
lived = []


def keep():
    tids.append(int(Path("/proc/thread-self").readlink().name))
    # Calls of C that let nobody else have it.
    for _ in range(3):
        sum(numbers)


if "forked" in sys.argv and ctypes.PyDLL(None).fork():
    os.wait()
    sys.exit()
if "wrapped" in sys.argv:
    Path("/proc/sys/kernel/ns_last_pid").write_text("300")
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
print(Path("/proc/self").readlink(), flush=True)
until = time.monotonic() + float(sys.argv[1])
while not told and time.monotonic() < until:
    tids = []
    began = time.monotonic_ns()
    thread = threading.Thread(target=keep)
    thread.start()
    while time.monotonic_ns() < began + 6_000_000:
        pass
    thread.join()
    lived.append([*tids, began, time.monotonic_ns()])
    time.sleep(0.002)
print(json.dumps(lived), flush=True)
