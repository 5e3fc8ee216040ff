"""A thread that sleeps below frames that are in pages it cannot read, as NUMA balancing hides them.

Prints its thread id and the names of the frames that can be read, innermost first.
"""

import ctypes
import gc
import json
import mmap
import os
import sys
import threading
import time

FRAME = 24  # of a frame object: where its data is, which the interpreter links
libc = ctypes.CDLL(None, use_errno=True)


def page(frame):
    """The page that a frame's data begins in."""
    data = ctypes.c_void_p.from_address(id(frame) + FRAME).value
    return data & -mmap.PAGESIZE


def sleep():
    time.sleep(0.001)


def bottom(seconds):
    frames = []
    frame = sys._getframe()
    while frame:
        frames.append(frame)
        frame = frame.f_back
    pages = [page(frame) for frame in frames]
    # The innermost page has what will be called, too.
    hidden = next(p for p in pages if p != pages[0])
    names = [f.f_code.co_name for f, p in zip(frames, pages)][: pages.index(hidden)]
    gc.disable()
    assert libc.mprotect(ctypes.c_void_p(hidden), mmap.PAGESIZE, 0) == 0
    until = time.monotonic() + seconds
    print(json.dumps([threading.get_native_id(), ["sleep", *names]]), flush=True)
    while time.monotonic() < until:
        sleep()
    os._exit(0)


def down(depth, seconds):
    if depth:
        down(depth - 1, seconds)
    else:
        bottom(seconds)


threading.Thread(target=down, args=(90, float(sys.argv[1]))).start()
