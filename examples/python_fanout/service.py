"""An asyncio service that makes a task for every item and lets a semaphore sort it out.

Usage: service.py disease|cure SECONDS
"""

import asyncio
import sys
import time

ITEMS = 30_000
AT_ONCE = 10


async def store(item: int) -> None:
    """One item: a little formatting, then the network."""
    str(item) * 10
    await asyncio.sleep(0.02)


async def fan_out() -> None:
    """All tasks at once: the loop has to start every one of them before it does anything else."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def guarded(item: int) -> None:
        async with gate:
            await store(item)

    await asyncio.gather(*[guarded(i) for i in range(ITEMS)])


async def bounded() -> None:
    """As many tasks as may work at once."""
    items = iter(range(ITEMS))

    async def worker() -> None:
        for item in items:
            await store(item)

    await asyncio.gather(*[worker() for _ in range(AT_ONCE)])


async def main(mode: str, seconds: float) -> None:
    """Batch after batch."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        batch = fan_out() if mode == "disease" else bounded()
        try:
            await asyncio.wait_for(batch, 1.0)
        except asyncio.TimeoutError:  # noqa: UP041 (another class before 3.11)
            continue


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
