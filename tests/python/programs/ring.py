"""Makes a ring of io_uring whose thread polls for requests, and computes.

The kernel's thread is of this process. It sleeps where none came for 20 ms, and is woken again.
"""

import ctypes
import struct
import sys
import threading
import time

SYS_IO_URING_SETUP, SYS_IO_URING_ENTER = 425, 426
SETUP_SQPOLL, ENTER_SQ_WAKEUP = 2, 2
IDLE_MS = 20

libc = ctypes.CDLL(None, use_errno=True)
parameters = (ctypes.c_char * 120)()
struct.pack_into("<5I", parameters, 0, 0, 0, SETUP_SQPOLL, 0, IDLE_MS)
ring = libc.syscall(SYS_IO_URING_SETUP, 8, parameters)
print(ring, flush=True)
until = time.monotonic() + float(sys.argv[1])


def burn():
    while time.monotonic() < until:
        sum(range(1000))


def handle_request():
    while time.monotonic() < until:
        at = time.monotonic() + 0.05
        while time.monotonic() < at:
            sum(range(1000))
        libc.syscall(SYS_IO_URING_ENTER, ring, 0, 0, ENTER_SQ_WAKEUP, None, 0)


threading.Thread(target=burn, daemon=True).start()
if ring >= 0:
    handle_request()
