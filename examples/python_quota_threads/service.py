"""A batch every 800 ms in a container with one CPU, on as many threads as somebody liked.

The batch needs 320 ms of CPU: 0.4 CPUs on average, of the one that is allowed.

Usage: service.py disease|cure SECONDS, in a cgroup with a quota of one CPU
"""

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

BLOCK = bytes(16 << 20)


def checksum(_: int) -> str:
    """40 ms of CPU, most of it without the GIL."""
    digest = hashlib.sha256()
    end = time.thread_time() + 0.04
    while time.thread_time() < end:
        digest.update(BLOCK)
    return digest.hexdigest()


def main(mode: str, seconds: float) -> None:
    """With eight threads the quota of 100 ms is gone in 50 ms, and all wait for the next period."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(8 if mode == "disease" else 1) as pool:
        while time.monotonic() < until:
            begin = time.monotonic()
            list(pool.map(checksum, range(8)))
            time.sleep(max(0.0, 0.8 - (time.monotonic() - begin)))


main(sys.argv[1], float(sys.argv[2]))
