"""A batch every 800 ms in a container with half a CPU, on as many threads as somebody liked.

The batch needs 160 ms of CPU: 0.2 CPUs on average, of the half that is allowed.

Usage: service.py disease|cure SECONDS, in a cgroup with a quota of half a CPU
"""

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

BLOCK = bytes(2 << 20)
PAUSE = 0.06


def checksum(pause: float) -> str:
    """20 ms of CPU, most of it without the GIL."""
    digest = hashlib.sha256()
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        digest.update(BLOCK)
    time.sleep(pause)
    return digest.hexdigest()


def main(mode: str, seconds: float) -> None:
    """Eight threads use up the 50 ms of a period at once, and all wait for the next one."""
    until = time.monotonic() + seconds
    threads, pause = (8, 0.0) if mode == "disease" else (1, PAUSE)
    with ThreadPoolExecutor(threads) as pool:
        while time.monotonic() < until:
            begin = time.monotonic()
            list(pool.map(checksum, [pause] * 8))
            time.sleep(max(0.0, 0.8 - (time.monotonic() - begin)))


main(sys.argv[1], float(sys.argv[2]))
