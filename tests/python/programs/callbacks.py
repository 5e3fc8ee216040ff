"""At SIGUSR1 threads of C begin to call a function that sleeps, and log it.

`callbacks.py LOG SECONDS LIBRARY THREADS RESTS RESTS_US`: of each between two calls.

Python knows such a thread only while it is in a call.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time

log = []


def callback():
    begin = time.monotonic_ns()
    time.sleep(0.01)
    log.append((threading.get_native_id(), begin, time.monotonic_ns()))


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
library = ctypes.CDLL(sys.argv[3])
function = ctypes.CFUNCTYPE(None)(callback)
print(os.getpid(), flush=True)
signal.sigwait([signal.SIGUSR1])
assert library.start(function, *map(int, sys.argv[4:])) == 0
signal.sigtimedwait([signal.SIGTERM], float(sys.argv[2]))
with open(sys.argv[1], "w") as out:
    json.dump(log, out)
os._exit(0)
