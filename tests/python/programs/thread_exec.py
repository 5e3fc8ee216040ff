"""A thread, not the first, becomes another program at SIGUSR1: `thread_exec.py SECONDS PYTHON`."""

import os
import signal
import sys
import threading
import time


def before_the_exec():
    time.sleep(0.02)


def after_the_exec():
    time.sleep(0.02)


def become():
    signal.sigwait([signal.SIGUSR1])
    os.execv(sys.argv[2], [sys.argv[2], __file__, sys.argv[1]])


nap = after_the_exec
if len(sys.argv) > 2:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    threading.Thread(target=become, daemon=True).start()
    nap = before_the_exec
    print(os.getpid(), flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    nap()
