"""A server of waits, as `sltrace serve` has one, and how it is asked."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import pyarrow as pa

from sltrace.analysis.part import Whole
from sltrace.cli.web import Server
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

PAGE = b"<!doctype html><title>page</title>"


@contextmanager
def serving(folder: Path, waits: pd.DataFrame) -> Iterator[Server]:
    """The server, and its trace in a folder."""
    path = make_trace(folder, pa.Table.from_pandas(waits, preserve_index=False))
    with Server(Whole(Trace.open(path)), PAGE, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(
    server: Server, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def ask(server: Server, name: str, **query: Any) -> Any:
    path = f"/{server.token}/api/{name}?{urlencode(query, doseq=True)}"
    status, headers, body = get(server, path)
    assert status == 200, body
    assert headers["Content-Type"] == "application/json"
    return json.loads(body)
