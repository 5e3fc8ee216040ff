"""The page by keyboard, without scripts, and what axe-core finds wrong with it: nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.report import FRAMES, STACKS, Report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

VIEWS = ("", "cells=40-90,60-120&with=150-200,40-120&split=comm&blame=comm")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_core_finds_nothing(open_report: Callable[..., Report], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    report = open_report(scheme=scheme, stacks=STACKS, frames=FRAMES)
    for view in VIEWS:
        report.show(view)
        report.page.locator("#flame-table").evaluate("node => { node.open = true }")
        report.page.wait_for_selector("#flame-table tr")
        # Plotly's own toolbar is images with titles; it is a shortcut for gestures and keys.
        found = Axe().run(report.page, context={"exclude": [[".modebar"]]})
        wrong = [
            (v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found.response["violations"]
        ]
        assert wrong == []
        assert len(found.response["passes"]) > 20


def test_without_javascript_no_control_is_empty(
    open_report: Callable[..., Report], browser: Browser
) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(open_report().url)
    assert page.is_visible("noscript p")
    assert page.locator("select:visible, button:visible, input:visible").count() == 0
    assert page.locator("section:visible, details:visible").count() == 0
    page.close()


def test_the_skip_link_keeps_what_is_shown(open_report: Callable[..., Report]) -> None:
    report = open_report()
    report.visit(report.url + "#axis=cpu&cells=10-20,0-1")
    figures = report.figures
    report.page.keyboard.press("Tab")
    assert report.page.evaluate("document.activeElement.className") == "skip"
    report.page.keyboard.press("Enter")
    report.settle()
    report.page.wait_for_timeout(100)
    assert report.page.evaluate("document.activeElement.id") == "heatmap"
    assert report.figures == figures
    assert "cells=10-20,0-1" in report.page.url
