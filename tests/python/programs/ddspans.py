"""Threads in spans of ddtrace, which publishes OTEP 4947's thread record; logs them.

With a third argument also tasks of asyncio; `patched`: as ddtrace-run does. Or `greenlets`; `late`:
which are imported once there is a file that is called as the log and `.late`.
"""

import asyncio
import logging
import os
import pathlib
import sys
import threading
import time

os.environ["DD_TRACE_AGENT_URL"] = "http://127.0.0.1:1"
os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "0"
os.environ["DD_REMOTE_CONFIGURATION_ENABLED"] = "0"
logging.disable(logging.CRITICAL)

import ddtrace  # noqa: E402
from ddtrace.trace import tracer  # noqa: E402
from logged import leave, until_told  # noqa: E402

if "patched" in sys.argv:
    ddtrace.patch(asyncio=True)

log = []
stop = False


def nap(seconds, span=None):
    tid = threading.get_native_id()
    ids = "%032x %016x" % (span.trace_id, span.span_id) if span else "- -"
    begin = time.monotonic_ns()
    time.sleep(seconds)
    log.append("%d %d %d %s" % (tid, begin, time.monotonic_ns(), ids))


def worker():
    while not stop:
        with tracer.trace("outer") as span:
            nap(0.002, span)
        nap(0.001)


async def handler():
    while not stop:
        with tracer.trace("task") as span:
            nap(0.0005, span)
            await asyncio.sleep(0.002)
            nap(0.0005, span)
        await asyncio.sleep(0.001)


async def handlers():
    await asyncio.gather(*[handler() for _ in range(6)])


def greenlets():
    while "late" in sys.argv and not pathlib.Path(sys.argv[1] + ".late").exists():
        time.sleep(0.01)
    import greenlet

    main = greenlet.getcurrent()

    def step():
        while not stop:
            with tracer.trace("greenlet") as span:
                nap(0.0005, span)
                main.switch()
                nap(0.0005, span)
            main.switch()

    steps = [greenlet.greenlet(step) for _ in range(6)]
    while not stop:
        for each in steps:
            each.switch()
        nap(0.0005)


targets = [worker] * 3
if "greenlets" in sys.argv:
    targets.append(greenlets)
elif len(sys.argv) > 3:
    targets.append(lambda: asyncio.run(handlers()))
for target in targets:
    threading.Thread(target=target, daemon=True).start()
until_told()
stop = True
leave(log)
