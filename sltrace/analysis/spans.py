"""Spans of OTLP/JSON, Tempo's or Jaeger's JSON, and what their time went to."""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from heapq import heappop, heappush
from itertools import accumulate
from pathlib import Path
from typing import Any

from sltrace.analysis.losses import missed_among
from sltrace.analysis.meta import clock_ns, clock_of, gaps, recorded_times
from sltrace.analysis.selection import Selection
from sltrace.analysis.timeline import (
    Timeline,
    Wait,
    by_cause,
    losses_within,
    normal_id,
    time_by_cause,
)
from sltrace.errors import UsageError
from sltrace.trace.reader import Trace

MAX_BYTES = 1 << 28
MAX_SPANS = 2000
"""Of one trace; the longest are kept."""

_HINT = "give OTLP/JSON (one document, or one a line) or what Tempo's or Jaeger's API or UI exports"
_BASE64 = {16: re.compile(r"[0-9A-Za-z+/]{22}=="), 8: re.compile(r"[0-9A-Za-z+/]{11}=")}
"""Ids of so many bytes as JSON made of messages by the general rule has them. OTLP/JSON has hex."""


@dataclass(frozen=True)
class Span:
    """One span; wall clock in ns."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    start_unix_ns: int
    end_unix_ns: int


@dataclass(frozen=True)
class SpanWaits:
    """A span and what its time went to.

    Attributes:
        span: The span.
        depth: Spans above it.
        start_ns: When it began, from the start of the recording.
        end_ns: When it ended.
        waits: Waits of it and of the spans below it.
        causes: Their time, within the span, each moment counted once; see `time_by_cause`.
        running_ns: The rest: it ran, or was on no thread that is known, or waited unseen.
        unseen: Waits not seen whole that may have been its own then: of its trace's threads, or
            of threads of which nothing else is known.
        cut: A part of it was not recorded; of that, nothing is known.
        elsewhere: Most of the waits tagged with it were at another time: its clock was another.
    """

    span: Span
    depth: int
    start_ns: int
    end_ns: int
    waits: int
    causes: dict[str, int]
    running_ns: int
    unseen: int
    cut: bool
    elsewhere: bool

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        return asdict(self)


def read_spans(path: str | Path) -> list[Span]:
    """Reads all spans of a file.

    Raises:
        UsageError: It cannot be read, or is neither OTLP/JSON nor Tempo's nor Jaeger's.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"{file} is larger than {MAX_BYTES >> 20} MB", "export fewer traces")
        text = file.read_text(encoding="utf-8")
    except OSError as err:
        raise UsageError(f"cannot read {file}: {err.strerror}", _HINT) from err
    except ValueError as err:
        raise UsageError(f"{file} is not text", _HINT) from err
    try:
        spans = [s for document in _documents(text) for s in _spans(document)]
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as err:
        raise UsageError(f"{file} has no spans that can be read", _HINT) from err
    if not spans:
        raise UsageError(f"{file} has no spans", _HINT)
    return spans


def explain_spans(trace: Trace, seen: Timeline, spans: Sequence[Span]) -> list[SpanWaits]:
    """Gives the spans of a trace their waits.

    A wait is of the span it was tagged with; one without a span id, or with one that is not among
    the spans, is of the innermost span that was under way in its middle.

    Args:
        trace: The recording.
        seen: The trace in it.
        spans: Of any traces; others are left out, and those without an id.

    Returns:
        The spans, each after its parent, by start.
    """
    chosen = sorted(
        (s for s in spans if s.span_id and s.trace_id == seen.trace_id),
        key=lambda s: s.start_unix_ns - s.end_unix_ns,
    )[:MAX_SPANS]
    by_id = {s.span_id: s for s in chosen}
    clock = clock_of(trace)
    # Each before those below it, so that the waits of all of these follow its own.
    tree = list(_tree(by_id))
    times = {
        i: (clock.monotonic(by_id[i].start_unix_ns), clock.monotonic(by_id[i].end_unix_ns))
        for i, _, _ in tree
    }
    own = _own_waits(seen.waits, times)
    tagged: defaultdict[str | None, list[Wait]] = defaultdict(list)
    for wait in seen.waits:
        tagged[wait.span_id].append(wait)
    origin = clock_ns(trace, "start_ns")
    whole = clock_ns(trace, "end_ns") - origin
    between = [(begin - origin, until - origin) for begin, until in gaps(trace)]
    missed = _missed(trace, seen.trace_id)
    counts = list(accumulate((len(own[span_id]) for span_id, _, _ in tree), initial=0))
    waits = by_cause(w for span_id, _, _ in tree for w in own[span_id])
    found = []
    for at, (span_id, depth, size) in enumerate(tree):
        start, end = times[span_id]
        begins, ends = counts[at], counts[at + size]
        parts = recorded_times(trace, origin + start, origin + end)
        recorded = [(begin - origin, until - origin) for begin, until in parts]
        causes = time_by_cause(waits[:, begins:ends], recorded)
        running = sum(until - begin for begin, until in recorded) - sum(causes.values())
        found.append(
            SpanWaits(
                span=by_id[span_id],
                depth=depth,
                start_ns=start,
                end_ns=end,
                waits=ends - begins,
                causes=causes,
                running_ns=running,
                unseen=sum(begin < end and start <= ended for begin, ended in missed),
                cut=start < 0
                or end > whole
                or any(begin < end and start < until for begin, until in between),
                elsewhere=_elsewhere(tagged[span_id], start, end),
            )
        )
    return found


def with_losses_of(trace: Trace, seen: Timeline, spans: Sequence[SpanWaits]) -> Timeline:
    """The same timeline; its losses are those of its spans, too, which may be longer than it."""
    if not spans:
        return seen
    start = min(seen.start_ns + 1, *(s.start_ns for s in spans))
    end = max(seen.end_ns + 1, *(s.end_ns for s in spans))
    return replace(seen, losses=losses_within(trace, seen.trace_id, start, end))


def _missed(trace: Trace, trace_id: str) -> list[tuple[int, int]]:
    """When the waits that were not seen whole, and may be of a trace, began at most, and ended."""
    condition, parameters, _ = missed_among(trace, Selection(values={"trace_id": (trace_id,)}))
    origin = clock_ns(trace, "start_ns")
    rows = trace.sql(
        f"SELECT end_ns - high_ns - ? AS begin, end_ns - ? AS ended FROM missed WHERE {condition}",
        [origin, origin, *parameters],
    ).to_pylist()
    return [(r["begin"], r["ended"]) for r in rows]


def _elsewhere(tagged: Sequence[Wait], start_ns: int, end_ns: int) -> bool:
    within = sum(w.start_ns <= end_ns and w.end_ns >= start_ns for w in tagged)
    return 2 * within < len(tagged)


def _own_waits(
    waits: Sequence[Wait], times: dict[str, tuple[int, int]]
) -> defaultdict[str, list[Wait]]:
    """By span its waits.

    Args:
        waits: Of the trace.
        times: When each span began and ended, each after its parent.
    """
    own: defaultdict[str, list[Wait]] = defaultdict(list)
    others = []
    for wait in waits:
        if wait.span_id in times:
            own[wait.span_id].append(wait)
        else:
            others.append(((wait.start_ns + wait.end_ns) // 2, wait))
    # Of two that are as long as each other the one below.
    spans = [(end - start, -place, i) for place, (i, (start, end)) in enumerate(times.items())]
    spans.sort(key=lambda span: times[span[2]][0], reverse=True)
    under_way: list[tuple[int, int, str]] = []
    for middle, wait in sorted(others, key=lambda other: other[0]):
        while spans and times[spans[-1][2]][0] <= middle:
            heappush(under_way, spans.pop())
        # Longer ones that have ended, too, are still there until they are the shortest.
        while under_way and times[under_way[0][2]][1] <= middle:
            heappop(under_way)
        if under_way:
            own[under_way[0][2]].append(wait)
    return own


def _tree(by_id: dict[str, Span]) -> Iterator[tuple[str, int, int]]:
    """Each span with its depth, and how many it and all below it are: these come next."""
    children: defaultdict[str | None, list[str]] = defaultdict(list)
    for span in by_id.values():
        # Whoever made the file may have made its spans each other's parents.
        parent = span.parent_id if span.parent_id in by_id and not _loops(span, by_id) else None
        children[parent].append(span.span_id)
    for ids in children.values():
        ids.sort(key=lambda i: (by_id[i].start_unix_ns, i))
    stack = [(i, 0) for i in reversed(children[None])]
    while stack:
        span_id, depth = stack.pop()
        below = [span_id]
        for i in below:
            below += children[i]
        yield span_id, depth, len(below)
        stack += [(i, depth + 1) for i in reversed(children[span_id])]


def _loops(span: Span, by_id: dict[str, Span]) -> bool:
    seen = {span.span_id}
    while (parent := span.parent_id) in by_id:
        if parent in seen:
            return True
        seen.add(parent)
        span = by_id[parent]
    return False


def _documents(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text)
    except ValueError:
        # The collector's file exporter writes a document a line.
        # Not splitlines: what else that takes for the end of a line may be within a text.
        for line in text.split("\n"):
            if line.strip():
                yield json.loads(line)


def _spans(document: Any) -> Iterator[Span]:
    """Spans of OTLP/JSON, or of a trace of Jaeger's, in whatever wraps those.

    Jaeger's API of version 3 has OTLP in `result`, that of version 2 a list of traces in `data`;
    what its UI downloads has either in `data`. Tempo's API of version 2 has OTLP in `trace`, that
    of version 1 and Grafana's downloads call it `batches`.
    """
    if isinstance(document, list):
        for part in document:
            yield from _spans(part)
    elif "resourceSpans" in document or "batches" in document:
        for resource in document.get("resourceSpans") or document.get("batches") or ():
            service = _service(resource.get("resource") or {})
            # The older name is in what Jaeger's API of version 3 gave until 2023.
            scopes = resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans")
            for scope in scopes or ():
                for span in scope.get("spans") or ():
                    yield _otlp(span, service)
    elif "spans" in document:
        processes = document.get("processes") or {}
        for span in document["spans"]:
            process = processes.get(span.get("processID")) or span.get("process") or {}
            yield _jaeger(span, str(process.get("serviceName", "")))
    else:
        wrapped = next((key for key in ("result", "trace") if key in document), "data")
        yield from _spans(document[wrapped])


def _otlp(span: dict[str, Any], service: str) -> Span:
    # JSON made of a message leaves out what is zero.
    start = _moment(span.get("startTimeUnixNano", 0))
    return Span(
        trace_id=_trace_id(span["traceId"]),
        span_id=_span_id(span["spanId"]),
        parent_id=_span_id(span.get("parentSpanId") or ""),
        name=str(span.get("name", "")),
        service=service,
        start_unix_ns=start,
        end_unix_ns=max(start, _moment(span.get("endTimeUnixNano", 0))),
    )


def _service(resource: dict[str, Any]) -> str:
    for attribute in resource.get("attributes") or ():
        if attribute.get("key") == "service.name":
            return str((attribute.get("value") or {}).get("stringValue", ""))
    return ""


def _jaeger(span: dict[str, Any], service: str) -> Span:
    trace_id = _trace_id(span["traceID"])
    start = _moment(int(span["startTime"]) * 1000)
    return Span(
        trace_id=trace_id,
        span_id=_span_id(span["spanID"]),
        parent_id=_parent(span, trace_id),
        name=str(span.get("operationName", "")),
        service=service,
        start_unix_ns=start,
        end_unix_ns=_moment(start + max(0, int(span["duration"])) * 1000),
    )


def _parent(span: dict[str, Any], trace_id: str) -> str:
    """The span that a Jaeger span is below, by Jaeger's own rule; empty for none.

    A reference to another trace is a link. Of those to its own the first that says child goes
    before those that say that it only follows.
    """
    found: dict[str, str] = {}
    for reference in span.get("references") or ():
        if _trace_id(reference.get("traceID", trace_id)) == trace_id:
            found.setdefault(str(reference.get("refType")), _span_id(reference["spanID"]))
    return (
        found.get("CHILD_OF")
        or found.get("FOLLOWS_FROM")
        or _span_id(span.get("parentSpanID") or "")
    )


def _trace_id(value: object) -> str:
    """A trace id as a recording has it; empty for what is none, which no recording has."""
    try:
        return normal_id(_hex(str(value), 16))
    except UsageError:
        return ""


def _moment(value: Any) -> int:
    """Wall clock, ns; ValueError for what no clock shows."""
    ns = int(value)
    if not 0 <= ns < 1 << 63:
        raise ValueError
    return ns


def _span_id(value: object) -> str:
    text = _hex(str(value), 8).lower()
    return text.zfill(16) if text else ""


def _hex(text: str, size: int) -> str:
    """An id of so many bytes as hex digits, if it is in base64."""
    return base64.b64decode(text).hex() if _BASE64[size].fullmatch(text) else text
