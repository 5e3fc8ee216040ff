"""The first thread ends without a word to Python, as where C embeds it; another goes on."""

import ctypes
import gc
import sys
import threading
import time

until = time.monotonic() + float(sys.argv[1])


def nap_of_the_other():
    while time.monotonic() < until:
        time.sleep(0.02)
        gc.collect()


threading.Thread(target=nap_of_the_other).start()
print("ready", flush=True)
# Called without the GIL.
ctypes.CDLL(None).pthread_exit(None)
