"""Runs asyncio for a moment, again and again, from what is synchronous otherwise."""

import asyncio
import sys
import time


async def ask():
    await asyncio.gather(*(asyncio.sleep(0.002 * i) for i in range(1, 6)))


def synchronous():
    time.sleep(0.1)


print("ready", flush=True)
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    asyncio.run(ask())
    synchronous()
