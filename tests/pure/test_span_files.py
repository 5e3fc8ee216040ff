"""Files of spans, as tracing systems write them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.spans import Span, read_spans
from sltrace.analysis.timeline import normal_id
from sltrace.errors import UsageError
from tests.pure.test_spans import ID, SPANS, otlp


def text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "type": "string", "value": value}


# The fields that Jaeger's query service writes (internal/uimodel/model.go), and its order of them.
JAEGER: dict[str, Any] = {
    "traceID": "ab" * 16,
    "spans": [
        {
            "traceID": "ab" * 16,
            "spanID": "0a" * 8,
            "operationName": "GET /cart",
            "references": [],
            "startTime": 1_700_000_000_000_123,
            "duration": 250,
            "tags": [
                text("span.kind", "server"),
                {"key": "http.status_code", "type": "int64", "value": 200},
                # Beyond what JavaScript can count.
                {"key": "bytes", "type": "int64", "value": "9223372036854775000"},
                {"key": "error", "type": "bool", "value": False},
                {"key": "blob", "type": "binary", "value": "AAAwOQ=="},
            ],
            "logs": [{"timestamp": 1_700_000_000_000_200, "fields": [text("event", "miss")]}],
            "processID": "p1",
            "warnings": None,
        },
        {
            "traceID": "ab" * 16,
            # Old clients and storages leave leading zeros out, others write capitals.
            "spanID": "B0B",
            "flags": 1,
            "operationName": "SELECT",
            # A link to another trace is no parent, though it is the first and says so.
            "references": [
                {"refType": "CHILD_OF", "traceID": "ff", "spanID": "00000000000000ff"},
                {"refType": "FOLLOWS_FROM", "traceID": "ab" * 16, "spanID": "0c" * 8},
                {"refType": "CHILD_OF", "traceID": "AB" * 16, "spanID": "0a" * 8},
            ],
            "startTime": 1_700_000_000_000_150,
            "duration": 7,
            "tags": [],
            "logs": [],
            "processID": "p2",
            "warnings": ["clock skew adjustment disabled; not applying calculated delta"],
        },
        {
            "traceID": "ab" * 16,
            "spanID": "0c" * 8,
            "operationName": "log",
            "references": [{"refType": "FOLLOWS_FROM", "traceID": "ab" * 16, "spanID": "b0b"}],
            "startTime": 1_700_000_000_000_160,
            "duration": 0,
            "tags": [],
            "logs": [],
            "processID": "p1",
            "warnings": [],
        },
    ],
    "processes": {
        "p1": {"serviceName": "shop", "tags": [text("hostname", "web-1"), text("ip", "10.0.0.1")]},
        "p2": {"serviceName": "db", "tags": []},
    },
    "warnings": None,
}


# Of 64 bits, from a client that knows no others.
JAEGER_64 = {
    "traceID": "ab1234567890cdef",
    "spans": [
        {**JAEGER["spans"][0], "traceID": "ab1234567890cdef", "spanID": "1"},
    ],
    "processes": {"p1": {"serviceName": "old", "tags": []}},
    "warnings": ["a span has no known process"],
}


ANSWER = {"total": 0, "limit": 0, "offset": 0, "errors": None}


@pytest.mark.parametrize(
    "document",
    [
        # /api/traces/ID, the search, and what the page of a trace and of a search download.
        {"data": [JAEGER, JAEGER_64], **ANSWER},
        {"data": [JAEGER, {"data": [JAEGER_64], **ANSWER}]},
        # One trace cut out of it.
        [JAEGER, JAEGER_64],
    ],
)
def test_jaeger(tmp_path: Path, document: object) -> None:
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(document))
    start = 1_700_000_000_000_123_000
    assert read_spans(file) == [
        Span(ID, "0a" * 8, "", "GET /cart", "shop", start, start + 250_000),
        Span(ID, "0" * 13 + "b0b", "0a" * 8, "SELECT", "db", start + 27_000, start + 34_000),
        Span(ID, "0c" * 8, "0" * 13 + "b0b", "log", "shop", start + 37_000, start + 37_000),
        Span(
            "0" * 16 + "ab1234567890cdef", "0" * 15 + "1", "", "GET /cart", "old",
            start, start + 250_000,
        ),
    ]  # fmt: skip


def test_what_jaegers_storage_has_of_a_span(tmp_path: Path) -> None:
    span = {**JAEGER["spans"][1], "process": JAEGER["processes"]["p2"]}
    del span["processID"]
    span |= {"references": [], "parentSpanID": "0A" * 8}
    file = tmp_path / "spans.json"
    file.write_text(json.dumps({"traceID": ID, "spans": [span]}))
    (read,) = read_spans(file)
    assert (read.service, read.parent_id) == ("db", "0a" * 8)


def test_otlp_from_the_collector_and_from_jaegers_api(tmp_path: Path) -> None:
    file = tmp_path / "spans.json"
    file.write_text("\n".join(json.dumps(otlp([s])) for s in SPANS))
    expected = read_spans(file)
    assert [s.service for s in expected] == ["shop"] * 4
    # What Python takes for the end of a line may be within a text.
    file.write_text("\n".join(json.dumps(otlp([s | {"kind": "\x85\u2028"}]), ensure_ascii=False)
                              for s in SPANS), encoding="utf-8")  # fmt: skip
    assert read_spans(file) == expected
    version_3 = {"result": otlp(SPANS)}
    old = json.dumps(version_3).replace("scopeSpans", "instrumentationLibrarySpans")
    for text_of in (
        json.dumps(otlp(SPANS)),
        json.dumps(version_3),
        # As it streams, and as its UI downloads it.
        "\n".join(json.dumps({"result": otlp([s])}) for s in SPANS),
        json.dumps({"data": [{"result": otlp([s])} for s in SPANS]}),
        json.dumps([otlp([s]) for s in SPANS]),
        old,
    ):
        file.write_text(text_of)
        assert read_spans(file) == expected
    # Whatever is zero is left out, and what has no trace id is of no recording.
    file.write_text(json.dumps({"result": otlp([{"traceId": "", "spanId": "", "name": "x"}])}))
    (nothing,) = read_spans(file)
    assert (nothing.trace_id, nothing.start_unix_ns, nothing.end_unix_ns) == ("", 0, 0)


def test_what_tempo_and_grafana_have(tmp_path: Path) -> None:
    """Its API makes JSON of messages by the general rule: ids are base64 of their bytes."""
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(otlp(SPANS)))
    expected = read_spans(file)

    def packed(value: str) -> str:
        return base64.b64encode(bytes.fromhex(value)).decode()

    spans = [
        {**s, **{name: packed(s[name]) for name in ("traceId", "spanId", "parentSpanId")}}
        for s in SPANS
    ]
    batches = otlp(spans)["resourceSpans"]
    for document in (
        {"batches": batches},
        {"trace": {"resourceSpans": batches}, "metrics": {}},
        {"batches": otlp(SPANS)["resourceSpans"]},
    ):
        file.write_text(json.dumps(document))
        assert read_spans(file) == expected
    file.write_text(json.dumps({"batches": []}))
    with pytest.raises(UsageError, match="has no spans"):
        read_spans(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"data": null, "errors": [{"code": 404, "msg": "trace not found"}]}',
        b'{"error": {"httpCode": 404, "message": "No traces found"}}',
        b"null",
        b"\xff\xfe",
        b'{"resourceSpans": 7}',
        b'{"resourceSpans": []}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}',
        b'{"data": ' * 5000 + b"1" + b"}" * 5000,
        b'{"data": [{"spans": [{"traceID": "x"}]}]}',
        b'{"data": {"spans": [{"traceID": "ab", "spanID": "1", "startTime": "soon"}]}}',
        b"[" * 100_000,
        b'{"data": {"spans": [{"traceID": "ab", "spanID": "1", "startTime": 1e999}]}}',
        *(
            json.dumps(
                {
                    "data": {
                        "spans": [{"traceID": "ab", "spanID": "1", "startTime": t, "duration": d}]
                    }
                }
            ).encode()
            for t, d in ((-1, 1), (1, 10**400), (10**17, 1))
        ),
    ],
)
def test_a_file_of_something_else_is_one_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "spans.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="give OTLP/JSON"):
        read_spans(file)


def test_ids_are_written_in_many_ways() -> None:
    assert normal_id(" 0xAB ") == "ab".zfill(32)
    assert normal_id("0af76519-16cd-43dd-8448-eb211c80319c") == "0af7651916cd43dd8448eb211c80319c"
    for wrong in ("", "0" * 32, "xyz", "a" * 33, "' OR 1=1"):
        with pytest.raises(UsageError, match="is not a trace id"):
            normal_id(wrong)
