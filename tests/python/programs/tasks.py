"""Tasks that sleep where they should not, each in a function of its own; and a thread that may."""

import asyncio
import os
import sys
import threading
import time


def of_order():
    time.sleep(0.004)


def of_ping():
    time.sleep(0.003)


def of_nobody():
    time.sleep(0.005)


class Shop:
    async def order(self):
        while True:
            await asyncio.sleep(0.03)
            await self.stock()

    async def stock(self):
        of_order()


async def ping():
    while True:
        await asyncio.sleep(0.03)
        of_ping()


def thread():
    while True:
        of_nobody()


async def main():
    tasks = [asyncio.create_task(Shop().order(), name="order %d" % i) for i in range(3)]
    await asyncio.wait([*tasks, asyncio.create_task(ping())], timeout=float(sys.argv[1]))
    os._exit(0)


threading.Thread(target=thread, daemon=True).start()
print(os.getpid(), flush=True)
asyncio.run(main())
