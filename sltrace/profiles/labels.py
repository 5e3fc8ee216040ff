"""What a profile's sample says about whose it is: its labels, by the names runtimes give them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LONGEST = 128

_KEYS = {
    "trace_id": ("trace_id", "traceid", "trace id", "otel_traceid", "trace.id"),
    "span_id": ("span_id", "spanid", "span id", "otel_spanid", "span.id"),
    "thread": ("thread_name", "thread name", "thread.name", "thread", "comm"),
    "tid": ("thread_id", "thread id", "thread.id", "tid"),
    "goroutine": ("goroutine", "goroutine_id", "goid"),
}
_FIELD_OF = {key: field for field, keys in _KEYS.items() for key in keys}


@dataclass(frozen=True)
class Labels:
    """Of a sample; empty where it does not say.

    Attributes:
        trace_id: Hex digits in lower case.
        span_id: Likewise.
        thread: Name of its thread.
        tid: Id of its thread, decimal.
        goroutine: Id of its goroutine, decimal.
    """

    trace_id: str = ""
    span_id: str = ""
    thread: str = ""
    tid: str = ""
    goroutine: str = ""

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return any(getattr(self, f.name) for f in fields(self))


NO_LABELS = Labels()


def labels_of(labels: Iterable[Any], text: Callable[[int], str]) -> Labels:
    """Reads a sample's labels.

    Args:
        labels: Messages of type Label.
        text: Gives a string of the profile's table.
    """
    found: dict[str, str] = {}
    for label in labels:
        field = _FIELD_OF.get(text(label.key).lower())
        value = text(label.str) or (str(label.num) if label.num else "")
        if field and value:
            found[field] = value[:_LONGEST]
    for name in ("trace_id", "span_id"):
        if name in found:
            found[name] = found[name].lower()
    return Labels(**found) if found else NO_LABELS
