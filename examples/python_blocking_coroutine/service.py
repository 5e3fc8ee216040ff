"""An asyncio service in which one handler calls something that blocks.

Usage: service.py disease|cure SECONDS
"""

import asyncio
import sys
import time


def fetch() -> None:
    """A client that knows nothing of asyncio: it sleeps in the kernel until the answer is there."""
    time.sleep(0.06)


async def report(mode: str) -> None:
    """The handler with the blocking call."""
    if mode == "disease":
        fetch()
    else:
        await asyncio.get_running_loop().run_in_executor(None, fetch)


async def ping() -> None:
    """A handler that has done nothing wrong."""
    await asyncio.sleep(0.005)


async def main(mode: str, seconds: float) -> None:
    """Many pings, and now and then a report."""
    until = time.monotonic() + seconds

    async def pings() -> None:
        while time.monotonic() < until:
            await ping()

    async def reports() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(0.15)
            await report(mode)

    await asyncio.gather(reports(), *[pings() for _ in range(20)])


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
