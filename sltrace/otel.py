"""For services that want sltrace to find their trace ids by a contract, not by private names.

sltrace reads the ids of OpenTelemetry's SDK without any of this, but by names that the SDK may
change. One line in the service replaces them by a variable of this module:

    import sltrace.otel; sltrace.otel.enable()

It is a context variable, so it follows threads and asyncio tasks as OpenTelemetry's own context
does. It holds the record of OTEP 4947: trace id, span id, valid (1), flags, no attributes. Runs on
Python 3.10 and later, and imports nothing but OpenTelemetry's API.
"""

from __future__ import annotations

import struct
from contextvars import ContextVar, Token
from typing import Any

RECORD: ContextVar[bytes] = ContextVar("sltrace_record", default=b"")
"""28 bytes while a span is current, else none."""

_pack = struct.Struct(">QQQBBH").pack
_LOW = (1 << 64) - 1


def enable() -> None:
    """Keeps RECORD up to date from now on, in every thread and task; twice is once.

    Costs about half a microsecond where a span begins and where it ends.
    """
    from opentelemetry import context, trace

    inner: Any = context._RUNTIME_CONTEXT
    if getattr(inner, "keeps_sltrace_record", False):
        return
    attach, detach = inner.attach, inner.detach

    def note(current: Any) -> None:
        ids = trace.get_current_span(current).get_span_context()
        record = b""
        if ids.is_valid:
            high, low = ids.trace_id >> 64, ids.trace_id & _LOW
            record = _pack(high, low, ids.span_id, 1, int(ids.trace_flags), 0)
        RECORD.set(record)

    def noting_attach(current: Any) -> Token[Any]:
        token: Token[Any] = attach(current)
        note(current)
        return token

    def noting_detach(token: Token[Any]) -> None:
        detach(token)
        note(inner.get_current())

    inner.attach, inner.detach = noting_attach, noting_detach
    inner.keeps_sltrace_record = True
