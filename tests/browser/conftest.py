from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from heatmaps.page import build_page
from sltrace.analysis.cube import MAX_ROWS, build_cube
from sltrace.trace.reader import Trace
from tests.browser.report import Report, waits
from tests.support.traces import make_trace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
]


def _why_not() -> str:
    if find_spec("playwright") is None:
        return "the Python package playwright is not installed"
    if not CHROMIUM.exists():
        return f"{CHROMIUM} is not installed"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and (why := _why_not()):
        if "browser" in os.environ.get("SLTRACE_REQUIRE", "").split(","):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield instance
        instance.close()


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Report]]:
    pages: list[Report] = []

    def opened(
        rows: Any = None,
        *,
        scheme: str = "light",
        profiles: Any = (),
        max_rows: int = MAX_ROWS,
        **tables: Any,
    ) -> Report:
        rows = waits() if rows is None else rows
        trace = Trace.open(make_trace(tmp_path, rows, **tables))
        file = tmp_path / "report.html"
        cube = build_cube(trace, max_rows=max_rows)
        file.write_bytes(build_page(trace, cube, profiles=profiles).html)
        page = browser.new_page(viewport={"width": 1400, "height": 1000}, color_scheme=scheme)
        pages.append(Report(page, file.as_uri(), trace))
        return pages[-1]

    yield opened
    for report in pages:
        report.page.close()
        asked = [url for url in report.requests if not url.startswith(("file:", "about:"))]
        assert asked == []
        assert report.complaints == []
