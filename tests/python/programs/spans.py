"""Threads and asyncio tasks in spans; logs who was in which span when."""

import asyncio
import random
import sys
import threading
import time

from logged import leave, until_told
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

if len(sys.argv) > 3 and sys.argv[3] == "helper":
    sys.path.insert(0, sys.argv[4])
    from sltrace import otel

    otel.enable()

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("spans")
log = []
stop = False


def nap(span, seconds):
    """Sleeps, which is a switch at least, and notes in which span."""
    tid = threading.get_native_id()
    ids = "- -"
    if span is not None:
        context = span.get_span_context()
        ids = "%032x %016x" % (context.trace_id, context.span_id)
    begin = time.monotonic_ns()
    time.sleep(seconds)
    end = time.monotonic_ns()
    log.append("%d %d %d %s" % (tid, begin, end, ids))


def worker():
    while not stop:
        with tracer.start_as_current_span("outer") as outer:
            nap(outer, 0.001)
            with tracer.start_as_current_span("inner") as inner:
                nap(inner, 0.001)
            nap(outer, 0.0005)
        nap(None, 0.0005)


async def handler():
    while not stop:
        with tracer.start_as_current_span("task") as span:
            nap(span, 0.0005)
            await asyncio.sleep(0.002 * random.random())
            nap(span, 0.0005)
            with tracer.start_as_current_span("step") as step:
                await asyncio.sleep(0)
                nap(step, 0.0005)
        await asyncio.sleep(0.002)


async def handlers():
    await asyncio.gather(*[handler() for _ in range(20)])


def remote_parent():
    """Spans that another process began: no SDK object, only a context."""
    while not stop:
        context = trace.SpanContext(
            random.getrandbits(128) or 1, random.getrandbits(64) or 1, True, trace.TraceFlags(1)
        )
        span = trace.NonRecordingSpan(context)
        with trace.use_span(span):
            nap(span, 0.001)


for target in (worker, worker, remote_parent, lambda: asyncio.run(handlers())):
    threading.Thread(target=target, daemon=True).start()
until_told()
stop = True
leave(log)
