from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from heatmaps.page import build_page
from sltrace.analysis.cube import MAX_ROWS, build_cube
from sltrace.analysis.part import Whole
from sltrace.trace.reader import Trace
from tests.browser.pages import Pages
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
        pytest.skip(why)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield instance
        instance.close()


@pytest.fixture(scope="session")
def pages(browser: Browser) -> Pages:
    return Pages(browser)


def build(
    folder: Path, rows: Any, *, profiles: Any = (), max_rows: int = MAX_ROWS, **tables: Any
) -> None:
    """Writes a trace and its page."""
    trace = Trace.open(make_trace(folder, rows, **tables))
    page = build_page(
        trace, Whole(trace, profiles).with_profiles(build_cube(trace, max_rows=max_rows))
    )
    (folder / "report.html").write_bytes(page.html)


@pytest.fixture(scope="session")
def shared_page(pages: Pages, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Report]:
    """Pages that several tests look at: open until the last test, as good as new for each."""
    made: dict[str, Report] = {}

    def page(rows: Any, scheme: str, **tables: Any) -> Report:
        key = json.dumps([rows, scheme, tables], sort_keys=True)
        if key in made:
            made[key].begin_again()
        else:
            folder = tmp_path_factory.mktemp("shared")
            build(folder, rows, **tables)
            made[key] = _opened(pages, folder, scheme)
        return made[key]

    return page


@pytest.fixture
def open_report(
    pages: Pages, tmp_path: Path, shared_page: Callable[..., Report]
) -> Iterator[Callable[..., Report]]:
    own: list[Report] = []
    all_of_them: list[Report] = []

    def opened(
        rows: Any = None, *, scheme: str = "light", shared: bool = False, **tables: Any
    ) -> Report:
        usual = rows is None and all(value is USUAL.get(name) for name, value in tables.items())
        rows = waits() if rows is None else rows
        if usual or shared:
            all_of_them.append(shared_page(rows, scheme, **tables))
        else:
            build(tmp_path, rows, **tables)
            own.append(_opened(pages, tmp_path, scheme))
            all_of_them.append(own[-1])
        return all_of_them[-1]

    yield opened
    for report in own:
        report.close(pages)
    for report in all_of_them:
        report.good()


def _opened(pages: Pages, folder: Path, scheme: str) -> Report:
    return Report(
        pages.take(scheme), (folder / "report.html").as_uri(), Trace.open(folder / "made.slt")
    )
