"""Threads in spans of ddtrace, which publishes OTEP 4947's thread record; logs them."""

import logging
import os
import signal
import sys
import threading
import time

os.environ["DD_TRACE_AGENT_URL"] = "http://127.0.0.1:1"
os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "0"
os.environ["DD_REMOTE_CONFIGURATION_ENABLED"] = "0"
logging.disable(logging.CRITICAL)

from ddtrace.trace import tracer  # noqa: E402

log = []
stop = False


def worker():
    tid = threading.get_native_id()
    while not stop:
        with tracer.trace("outer") as span:
            begin = time.monotonic_ns()
            time.sleep(0.002)
            end = time.monotonic_ns()
            log.append("%d %d %d %032x %016x" % (tid, begin, end, span.trace_id, span.span_id))
        begin = time.monotonic_ns()
        time.sleep(0.001)
        log.append("%d %d %d - -" % (tid, begin, time.monotonic_ns()))


for _ in range(3):
    threading.Thread(target=worker, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print(os.getpid(), flush=True)
signal.sigtimedwait([signal.SIGTERM], float(sys.argv[2]))
stop = True
time.sleep(0.1)
with open(sys.argv[1], "w") as out:
    out.write("\n".join(log))
os._exit(0)
