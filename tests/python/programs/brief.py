"""At SIGUSR1 threads wait for the GIL beside one that computes, and then end at once."""

import signal
import sys
import threading
import time

seconds, threads = float(sys.argv[1]), int(sys.argv[2])
stop = time.monotonic() + seconds
over = threading.Event()


def compute() -> None:
    while not over.is_set() and time.monotonic() < stop:
        pass


def brief() -> None:
    time.sleep(0.01)


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
computing = threading.Thread(target=compute)
computing.start()
print("computing", flush=True)
signal.sigwait([signal.SIGUSR1])
for _ in range(threads):
    one = threading.Thread(target=brief)
    one.start()
    one.join()
over.set()
computing.join()
