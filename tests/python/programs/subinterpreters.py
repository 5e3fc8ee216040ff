"""Two threads of a sub-interpreter that has a GIL of its own; prints them as JSON."""

import json
import os
import sys
import threading
import time

try:
    import _interpreters as interpreters  # 3.13
except ImportError:
    import _xxsubinterpreters as interpreters  # 3.12

CODE = """
import os, threading, time
names = []
def hog():
    names.append(threading.get_native_id())
    if len(names) == 2:
        os.write(%d, (" ".join(map(str, names)) + "\\n").encode())
    until = time.monotonic() + %s
    while time.monotonic() < until:
        sum(range(20000))
mine = [threading.Thread(target=hog) for _ in range(2)]
for each in mine:
    each.start()
for each in mine:
    each.join()
"""
reading, writing = os.pipe()
code = CODE % (writing, sys.argv[1])
threading.Thread(
    target=interpreters.run_string, args=(interpreters.create(), code), daemon=True
).start()
with os.fdopen(reading) as said:
    print(json.dumps([int(t) for t in said.readline().split()]), flush=True)
time.sleep(float(sys.argv[1]))
os._exit(0)
