"""The report as `sltrace serve` serves it, in a browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from heatmaps.page import build_page
from sltrace.cli.web import Server
from sltrace.trace.reader import Trace
from tests.support.traces import SECOND, make_trace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_the_page_works_over_http_and_asks_nobody_else(browser: Browser, tmp_path: Path) -> None:
    waits = [{"wait_ns": i * 1000, "end_ns": i * SECOND // 10} for i in range(1, 50)]
    trace = Trace.open(make_trace(tmp_path, waits))
    with Server(trace, build_page(trace).html, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        page = browser.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.url)
        assert "testhost" in page.inner_text("h1")
        page.wait_for_selector("#heatmap .plot-container")
        page.close()
        server.shutdown()
        thread.join()
    assert complaints == []
    assert all(url.startswith(f"http://127.0.0.1:{server.server_port}/") for url in asked)
