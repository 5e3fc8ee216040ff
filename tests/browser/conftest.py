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
from tests.browser.report import FRAMES, STACKS, Report, waits
from tests.support.traces import make_trace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = Path("/usr/bin/chromium")
USUAL = {"stacks": STACKS, "frames": FRAMES}
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


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Reports of the waits that most tests look at, each made once."""
    made: dict[tuple[str, ...], Path] = {}

    def folder(**tables: Any) -> Path:
        key = tuple(sorted(tables))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("usual")
            build(made[key], waits(), **tables)
        return made[key]

    return folder


def build(
    folder: Path, rows: Any, *, profiles: Any = (), max_rows: int = MAX_ROWS, **tables: Any
) -> None:
    """Writes a trace and its page."""
    trace = Trace.open(make_trace(folder, rows, **tables))
    page = build_page(trace, build_cube(trace, max_rows=max_rows), profiles=profiles)
    (folder / "report.html").write_bytes(page.html)


@pytest.fixture(scope="session")
def usual_page(browser: Browser, usual: Callable[..., Path]) -> Iterator[Callable[..., Report]]:
    """Their pages, open until the last test, as good as new for each."""
    made: dict[tuple[str, ...], Report] = {}

    def page(scheme: str, **tables: Any) -> Report:
        key = (scheme, *sorted(tables))
        if key in made:
            made[key].begin_again()
        else:
            made[key] = _opened(browser, usual(**tables), scheme)
        return made[key]

    yield page
    for report in made.values():
        report.page.close()


@pytest.fixture
def open_report(
    browser: Browser, tmp_path: Path, usual_page: Callable[..., Report]
) -> Iterator[Callable[..., Report]]:
    own: list[Report] = []
    pages: list[Report] = []

    def opened(rows: Any = None, *, scheme: str = "light", **tables: Any) -> Report:
        if rows is None and all(value is USUAL.get(name) for name, value in tables.items()):
            pages.append(usual_page(scheme, **tables))
        else:
            build(tmp_path, waits() if rows is None else rows, **tables)
            own.append(_opened(browser, tmp_path, scheme))
            pages.append(own[-1])
        return pages[-1]

    yield opened
    for report in own:
        report.page.close()
    for report in pages:
        report.good()


def _opened(browser: Browser, folder: Path, scheme: str) -> Report:
    page = browser.new_page(viewport={"width": 1400, "height": 1000}, color_scheme=scheme)
    return Report(page, (folder / "report.html").as_uri(), Trace.open(folder / "made.slt"))
