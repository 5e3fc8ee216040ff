"""Records a request whose spans it tags itself: the stand-in for a runtime with trace ids.

    python -m tests.support.tagged FOLDER CPU

Writes FOLDER/tagged.slt, and FOLDER/spans.json with the spans as the request's thread timed them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.capture.maps import update_map
from sltrace.capture.session import Recording
from sltrace.capture.settings import Filters, Settings
from sltrace.capture.sources import Context, Rows
from sltrace.model import IdSource

if TYPE_CHECKING:
    import pyarrow as pa

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
ROOT, SLEEPS, COMPETES = "b7ad6b7169203331", "00f067aa0ba902b7", "53995c3f42cd8ad8"
SLEEP_S = 0.08
SPIN_S = 0.15


class Tags:
    """A source without probes: it only has the map that the scheduler's probes copy tags from."""

    name = "tagged"
    privileges: frozenset[int] = frozenset()
    fd = -1

    def attach(self, context: Context) -> None:
        self.fd = context.tags_fd
        context.take_tags()

    def fill(self) -> float:
        return 0.0

    def drain(self) -> None:
        return

    def rows(self) -> Rows:
        return iter(())

    def finish(self) -> Rows:
        return iter(())

    def targets(self) -> Sequence[pa.Table]:
        return ()

    def describe(self) -> dict[str, Any]:
        return {"attached": []}

    def detach(self, end_ns: int) -> None:
        return

    def close(self) -> None:
        return


def main(folder: Path, cpu: int) -> None:
    gate, opened = os.pipe()
    tags = Tags()
    settings = Settings(filters=Filters(pids=(os.getpid(),)))
    recording = Recording(folder / "tagged.slt", settings, sources=[tags])
    child = os.fork()
    if child == 0:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.read(gate, 1)
        try:
            spans = request(tags.fd, cpu)
            (folder / "spans.json").write_text(json.dumps(otlp(spans)))
        finally:
            os._exit(0)
    os.write(opened, b"g")
    recording.run(lambda: os.waitpid(child, os.WNOHANG)[0] != 0, lambda status: None)
    recording.finish("its command has ended")


def request(fd: int, cpu: int) -> list[dict[str, Any]]:
    """Sleeps, then wants a CPU that another process holds half of."""
    os.sched_setaffinity(0, {cpu})
    rival = os.fork()
    if rival == 0:
        signal.alarm(10)
        while True:
            pass
    spans: list[dict[str, Any]] = []

    def span(span_id: str, parent: str, name: str, action: Callable[[], None]) -> None:
        start = time.time_ns()
        action()
        tag(fd, parent)
        spans.append(
            {
                "traceId": TRACE_ID,
                "spanId": span_id,
                "parentSpanId": parent,
                "name": name,
                "startTimeUnixNano": str(start),
                "endTimeUnixNano": str(time.time_ns()),
            }
        )

    def sleeps() -> None:
        tag(fd, SLEEPS)
        time.sleep(SLEEP_S)

    def competes() -> None:
        tag(fd, COMPETES)
        spin(SPIN_S)

    def whole() -> None:
        tag(fd, ROOT)
        span(SLEEPS, ROOT, "sleeps", sleeps)
        span(COMPETES, ROOT, "competes", competes)

    try:
        span(ROOT, "", "request", whole)
    finally:
        os.kill(rival, signal.SIGKILL)
        os.waitpid(rival, 0)
    return spans


def spin(seconds: float) -> None:
    """Uses this much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def tag(fd: int, span_id: str) -> None:
    value = bytes.fromhex(TRACE_ID) + bytes.fromhex(span_id or "00" * 8) + bytes(16)
    value += bytes([IdSource.OTEL_SDK]) + bytes(7)
    update_map(fd, threading.get_native_id().to_bytes(4, "little"), value)


def otlp(spans: list[dict[str, Any]]) -> dict[str, Any]:
    attributes = [{"key": "service.name", "value": {"stringValue": "shop"}}]
    return {
        "resourceSpans": [
            {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": spans}]}
        ]
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
