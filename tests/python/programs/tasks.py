"""Tasks that sleep where they should not, each in a function of its own; and a thread that may."""

import asyncio
import json
import os
import signal
import sys
import threading
import time

log = []


def of_order():
    begin = time.monotonic_ns()
    time.sleep(0.004)
    log.append((begin, time.monotonic_ns(), asyncio.current_task().get_name()))


def of_ping():
    begin = time.monotonic_ns()
    time.sleep(0.003)
    # Its name is none, and asking for it would make one.
    log.append((begin, time.monotonic_ns(), ""))


def of_nobody():
    time.sleep(0.005)


NAMES = ("order 1", "order of a name that is longer than what is kept of one", "Task-7")


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


def end():
    with open(sys.argv[2], "w") as out:
        json.dump(log, out)
    print("logged", flush=True)


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    tasks = [asyncio.create_task(Shop().order(), name=name) for name in NAMES]
    await asyncio.wait([*tasks, asyncio.create_task(ping())], timeout=float(sys.argv[1]))
    os._exit(0)


threading.Thread(target=thread, daemon=True).start()
print(os.getpid(), flush=True)
asyncio.run(main())
