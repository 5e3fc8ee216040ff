"""What axe-core finds wrong with the page: nothing, in either theme."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.report import FRAMES, STACKS, Report

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
