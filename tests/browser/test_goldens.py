"""Each view looks as it did when somebody last looked at it, within a tolerance.

After a change that is meant: SLTRACE_UPDATE_GOLDENS=1, then look at every picture that changed.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sltrace.profiles.pprof import read_pprof
from tests.browser.report import FRAMES, STACKS, Report
from tests.browser.test_diagnosis import starved
from tests.browser.test_traces import traced
from tests.support.profiles import make_pprof
from tests.support.traces import SECOND

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

GOLDENS = Path(__file__).parent / "goldens"
# Fonts and antialiasing differ between machines: pictures are compared as mosaics. A tile is
# about 20 pixels wide.
TILES = (70, 50)
MOST_MEAN = 0.012
MOST_TILE = 0.25

VIEWS = {
    "whole": "",
    "selection": "#cells=100-200,60-140",
    "difference": "#cells=30-90,40-120&with=150-220,20-140",
    "threads": "#axis=comm&measure=max&scale=rank&split=comm",
    "innermost": "#axis=cpu&order=leaf&measure=count&scale=linear",
    "trace": "#trace=00000000000000000000000000000005&axis=bucket",
}

DARK = ["whole", "difference"]
# Half the size is enough to be looked at and small enough to be kept.
HALF = """async (data) => {
    const image = new Image();
    image.src = "data:image/png;base64," + data;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width / 2, image.height / 2];
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", 0.6).split(",")[1];
}"""
COMPARE = """async ([first, second, [width, height]]) => {
    const tiles = async (data) => {
        const image = new Image();
        image.src = "data:image/jpeg;base64," + data;
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [width, height];
        const context = canvas.getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(image, 0, 0, width, height);
        return context.getImageData(0, 0, width, height).data;
    };
    const [a, b] = [await tiles(first), await tiles(second)];
    let [sum, worst] = [0, 0];
    for (let i = 0; i < a.length; i += 4) {
        let d = 0;
        for (let c = 0; c < 3; c++) d += Math.abs(a[i + c] - b[i + c]) / 765;
        sum += d;
        worst = Math.max(worst, d);
    }
    return [sum / (width * height), worst];
}"""


def rows() -> list[dict[str, Any]]:
    """Waits with something to see in every view."""
    return [
        row | {"comm": f"worker-{i % 4}", "stack_kernel": 1 + i % 2}
        for i, row in enumerate(traced())
    ] + [row | {"stack_kernel": 1} for row in starved("/victim")]


class Album:
    """Pictures of a page, compared in a blank one."""

    def __init__(self, browser: Browser) -> None:
        self.blank = browser.new_page()

    def picture(self, report: Report) -> bytes:
        whole = report.page.screenshot(full_page=True)
        half: str = self.blank.evaluate(HALF, base64.b64encode(whole).decode())
        return base64.b64decode(half)

    def differ(self, first: bytes, second: bytes) -> tuple[float, float]:
        """Mean and largest difference of the tiles, 0 to 1."""
        pictures = [base64.b64encode(p).decode() for p in (first, second)]
        mean, worst = self.blank.evaluate(COMPARE, [*pictures, TILES])
        return mean, worst

    def check(self, report: Report, name: str) -> bytes:
        golden = GOLDENS / f"{name}.jpg"
        now = self.picture(report)
        if os.environ.get("SLTRACE_UPDATE_GOLDENS"):
            GOLDENS.mkdir(exist_ok=True)
            golden.write_bytes(now)
        mean, worst = self.differ(golden.read_bytes(), now)
        assert mean < MOST_MEAN, f"{name} differs from {golden}"
        assert worst < MOST_TILE, f"a part of {name} differs from {golden}"
        return now


@pytest.fixture
def album(browser: Browser) -> Iterator[Album]:
    made = Album(browser)
    yield made
    made.blank.close()


@pytest.mark.parametrize(("scheme", "views"), [("light", [*VIEWS]), ("dark", DARK)])
def test_views(
    open_report: Callable[..., Report], album: Album, scheme: str, views: list[str]
) -> None:
    report = open_report(rows(), scheme=scheme, stacks=STACKS, frames=FRAMES)
    seen = []
    for name in views:
        report.visit(report.url + VIEWS[name])
        seen.append(album.check(report, f"{name}-{scheme}"))
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
    album.check(report, "paper")
