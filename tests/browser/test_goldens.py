"""Each view looks as it did when somebody last looked at it, within a tolerance.

After a change that is meant: SLTRACE_UPDATE_GOLDENS=1, then look at every picture that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.album import MOST_MEAN, MOST_TILE, Album
from tests.browser.report import FRAMES, STACKS, Report
from tests.browser.test_diagnosis import starved
from tests.browser.test_traces import traced
from tests.support.profiles import make_pprof, read_pprof
from tests.support.traces import SECOND

if TYPE_CHECKING:
    from tests.browser.pages import Pages

pytestmark = pytest.mark.browser

VIEWS = {
    "whole": "",
    "selection": "cells=100-200,60-140",
    "difference": "cells=30-90,40-120&with=150-220,20-140",
    "threads": "axis=comm&measure=max&scale=rank&split=comm",
    "innermost": "axis=cpu&order=leaf&measure=count&scale=linear",
    "trace": "trace=00000000000000000000000000000005&axis=bucket",
}

DARK = ["whole", "difference"]


def rows() -> list[dict[str, Any]]:
    """Waits with something to see in every view."""
    return [
        row | {"comm": f"worker-{i % 4}", "stack_kernel": 1 + i % 2}
        for i, row in enumerate(traced())
    ] + [row | {"stack_kernel": 1} for row in starved("/victim")]


@pytest.fixture
def album(pages: Pages) -> Iterator[Album]:
    made = Album(pages.take(origin="blank"))
    yield made
    pages.give_back(made.blank, "blank")


@pytest.mark.parametrize(("scheme", "views"), [("light", [*VIEWS]), ("dark", DARK)])
def test_views(
    open_report: Callable[..., Report], album: Album, scheme: str, views: list[str]
) -> None:
    report = open_report(rows(), scheme=scheme, stacks=STACKS, frames=FRAMES)
    seen = []
    for name in views:
        report.show(VIEWS[name])
        seen.append(album.check(report.page, f"{name}-{scheme}"))
    # The tolerance tells one view from another.
    for one, other in pairwise(seen):
        mean, worst = album.differ(one, other)
        assert mean > MOST_MEAN or worst > MOST_TILE


def test_on_paper_with_losses_and_a_profile(
    open_report: Callable[..., Report],
    album: Album,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its path is in the picture.
    monkeypatch.chdir(tmp_path)
    Path("cpu.pb").write_bytes(make_pprof({("do_syscall", "copy"): [1, 3 * SECOND]}))
    lost = {"cpu": 1, "name": "ring_full", "class": "loss", "value": 1204}
    report = open_report(
        rows(),
        stacks=STACKS,
        frames=FRAMES,
        counters=[lost | {"start_ns": 4 * SECOND, "end_ns": 5 * SECOND}],
        profiles=[read_pprof("cpu.pb")],
    )
    report.page.emulate_media(media="print")
    album.check(report.page, "paper")
