"""A thread of a sub-interpreter computes, and holds the GIL that all share; prints a line."""

import _xxsubinterpreters as interpreters  # up to 3.11
import os
import sys
import threading
import time

reading, writing = os.pipe()
code = f"import os, time\nos.write({writing}, b'0')\nwhile True: sum(range(100000)), time.sleep(0)"
threading.Thread(
    target=interpreters.run_string, args=(interpreters.create(), code), daemon=True
).start()
os.read(reading, 1)
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
os._exit(0)
