"""An asyncio service that logs its iterations: select() returned, select() was called again."""

import asyncio
import json
import os
import random
import selectors
import signal
import sys
import time

log = []
lags = []


class Logged(selectors.EpollSelector):
    back = None

    def select(self, timeout=None):
        now = time.monotonic_ns()
        if self.back is not None:
            log.append((self.back, now))
        found = super().select(timeout)
        self.back = time.monotonic_ns()
        return found


def block(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def heartbeat(until):
    while time.monotonic() < until:
        due = time.monotonic() + 0.005
        await asyncio.sleep(0.005)
        lags.append((time.monotonic_ns(), int((time.monotonic() - due) * 1e9)))


async def polite(until):
    while time.monotonic() < until:
        await asyncio.sleep(random.random() * 0.02)
        block(random.choice((0.0002, 0.0005, 0.001)))


async def rude(until):
    while time.monotonic() < until:
        await asyncio.sleep(0.2)
        block(0.03)


async def main(until):
    await asyncio.gather(heartbeat(until), rude(until), *[polite(until) for _ in range(8)])


def end(*_):
    with open(sys.argv[1], "w") as out:
        json.dump({"iterations": log, "lags": lags}, out)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
print(os.getpid(), flush=True)
loop = asyncio.SelectorEventLoop(Logged())
loop.run_until_complete(main(time.monotonic() + float(sys.argv[2])))
