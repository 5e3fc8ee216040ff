"""A thread that collects garbage in spans, and outside of any; logs in which span when.

What is freed calls the collector again, which does nothing.
"""

import gc
import threading
import time

from logged import leave, until_told
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("collected")
log = []
stop = False


class Freed:
    def __init__(self):
        self.me = self

    def __del__(self):
        gc.collect()


def collect(ids):
    Freed()
    begin = time.monotonic_ns()
    gc.collect(1)
    log.append("%d %d %d %s" % (threading.get_native_id(), begin, time.monotonic_ns(), ids))
    time.sleep(0.005)


def worker():
    while not stop:
        with tracer.start_as_current_span("outer") as span:
            context = span.get_span_context()
            collect("%032x %016x" % (context.trace_id, context.span_id))
        collect("- -")


gc.disable()
threading.Thread(target=worker, daemon=True).start()
until_told()
stop = True
leave(log)
