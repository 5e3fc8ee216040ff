"""A Flask service, instrumented by OpenTelemetry's own package."""

import time

from flask import Flask, jsonify
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


def query() -> None:
    time.sleep(0.005)


@app.get("/")
def index():
    query()
    span = trace.get_current_span().get_span_context()
    return jsonify(trace_id=f"{span.trace_id:032x}", text="x" * 100)
