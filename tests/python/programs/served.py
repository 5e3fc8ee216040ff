"""Waits for requests, of which there is one each time, and answers them after a while.

`served.py SECONDS LIBRARY`: the server, in C, that is said to do so.
"""

import ctypes
import select
import sys
import time
import types

server = ctypes.CDLL(sys.argv[2])
sys.modules["pyuwsgi"] = types.ModuleType("pyuwsgi")
nothing = select.epoll()
print(flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    nothing.poll(0.01)
    time.sleep(0.03)
