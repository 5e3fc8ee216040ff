"""Requests whose spans sleep, compute, and compete for the GIL; the SDK exports them to a file.

What each span's thread used of the CPU by its own clock is an attribute of the span. When a request
that has ended began is printed.
"""

import os
import signal
import sys
import threading
import time

from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
provider.add_span_processor(BatchSpanProcessor(FileSpanExporter(sys.argv[1])))
tracer = provider.get_tracer("exported")
contended = threading.Event()


def rival():
    while True:
        contended.wait()
        sum(range(1000))


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def timed(name, work, *arguments):
    with tracer.start_as_current_span(name) as span:
        begin = time.thread_time_ns()
        work(*arguments)
        span.set_attribute("cpu_ns", time.thread_time_ns() - begin)


def request():
    timed("sleep", time.sleep, 0.06)
    timed("compute", spin, 0.06)
    contended.set()
    timed("contend", spin, 0.06)
    contended.clear()


def serve():
    while True:
        begin = time.time_ns()
        timed("request", request)
        print(begin, flush=True)
        time.sleep(0.005)


for target in (rival, serve):
    threading.Thread(target=target, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print(os.getpid(), flush=True)
signal.sigtimedwait([signal.SIGTERM], float(sys.argv[2]))
provider.shutdown()
os._exit(0)
