"""Three threads that only compute; prints their ids as JSON."""

import json
import sys
import threading
import time

until = time.monotonic() + float(sys.argv[1])


def burn():
    while time.monotonic() < until:
        sum(range(1000))


threads = [threading.Thread(target=burn, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
print(json.dumps([thread.native_id for thread in threads]), flush=True)
time.sleep(float(sys.argv[1]))
