"""A FastAPI service, instrumented by OpenTelemetry's own package."""

import asyncio
import time

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
app = FastAPI()
FastAPIInstrumentor.instrument_app(app)


def blocking() -> None:
    time.sleep(0.002)


@app.get("/")
async def index() -> dict[str, str]:
    await asyncio.sleep(0.002)
    blocking()
    span = trace.get_current_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}"}


@app.get("/thread")
def in_thread() -> dict[str, str]:
    blocking()
    span = trace.get_current_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}"}
