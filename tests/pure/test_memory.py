"""Memory that the recorder has freed is the system's again."""

from __future__ import annotations

import subprocess
import sys

_FREED_MB = 24
_PROGRAM = f"""
import ctypes, threading
from sltrace.capture import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
freed, end = threading.Event(), threading.Event()

def resident_mb():
    with open("/proc/self/status") as file:
        return next(int(l.split()[1]) / 1024 for l in file if l.startswith("RssAnon:"))

def work():
    got = (ctypes.c_void_p * {_FREED_MB << 4})()
    # Who frees a large piece keeps more of what follows.
    for size, pieces in ((16 << 20, 1), (1 << 16, len(got))):
        for piece in range(pieces):
            got[piece] = libc.malloc(ctypes.c_size_t(size))
            ctypes.memset(got[piece], 1, size)
        for piece in range(pieces):
            libc.free(ctypes.c_void_p(got[piece]))
    freed.set()
    end.wait()

memory.use_one_heap()
threading.Thread(target=work).start()
freed.wait()
before = resident_mb()
memory.give_back()
print(before - resident_mb())
end.set()
"""


def test_what_a_thread_has_freed_is_given_back() -> None:
    """Also what it freed last, while it goes on."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) > 0.9 * _FREED_MB
