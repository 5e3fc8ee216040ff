"""A Celery worker, instrumented by OpenTelemetry's own package, profiled by Pyroscope's client.

Each task notes its thread, ids, and how long it computed.
"""

import os
import threading
import time
from pathlib import Path

import pyroscope
from celery import Celery
from celery.signals import worker_ready, worker_shutdown
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

FOLDER = os.environ["CELERY_FOLDER"]

trace.set_tracer_provider(TracerProvider())
CeleryInstrumentor().instrument()
app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": FOLDER + "/queue",
    "data_folder_out": os.environ.get("CELERY_OUT", FOLDER + "/queue"),
    "control_folder": FOLDER + "/control",
    "polling_interval": 0.02,
}
app.conf.worker_hijack_root_logger = False


@worker_ready.connect
def begin(**_):
    if "PYROSCOPE" in os.environ:
        pyroscope.configure(
            application_name="shop",
            server_address=os.environ["PYROSCOPE"],
            upload_interval=1,
            gil_only=False,
            report_thread_id=True,
            tags={"region": "eu"},
        )
    print("worker is ready", flush=True)


@worker_shutdown.connect
def end(**_):
    if "PYROSCOPE" in os.environ:
        pyroscope.shutdown()


def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def query():
    time.sleep(0.004)


def send(numbers):
    """Puts orders into the queue when they are whole: a worker that reads half of one ends."""
    for number in numbers:
        order.delay(number)
    for message in Path(os.environ["CELERY_OUT"]).iterdir():
        message.rename(Path(FOLDER, "queue", message.name))


@app.task
def order(number):
    span = trace.get_current_span().get_span_context()
    ids = {"trace_id": "%032x" % span.trace_id, "span_id": "%016x" % span.span_id}
    begin = time.monotonic_ns()
    with pyroscope.tag_wrapper(ids):
        query()
        compute(0.008)
    line = "%d %d %d %s %s\n" % (
        threading.get_native_id(), begin, time.monotonic_ns(), ids["trace_id"], ids["span_id"],
    )  # fmt: skip
    with open(FOLDER + "/log", "a") as log:
        log.write(line)
