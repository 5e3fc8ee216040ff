"""At SIGUSR1 forks, and then becomes another program: `changes.py SECONDS [INTERPRETER]`."""

import os
import signal
import sys
import time

if len(sys.argv) > 2 and sys.argv[2] != "last":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    print(os.getpid(), flush=True)
    signal.sigwait([signal.SIGUSR1])
    if os.fork() == 0:

        def in_the_child():
            time.sleep(0.02)

        until = time.monotonic() + float(sys.argv[1])
        while time.monotonic() < until:
            in_the_child()
        os._exit(0)
    os.execv(sys.argv[2], [sys.argv[2], __file__, sys.argv[1], "last"])


def after_the_exec():
    time.sleep(0.02)


until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    after_the_exec()
