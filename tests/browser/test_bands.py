"""Bands over the heatmap where waits were lost, however many there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.report import Report
from tests.support.traces import SECOND

pytestmark = pytest.mark.browser

LOSSES = 2000
# Elements that are gone through, and losses that are read, when shapes are asked for.
WORK = """() => {
    const cube = { bin_ns: 1e9, bins: 300, offset_ns: 0, duration_ns: 300e9, reads: 0 };
    cube.losses = Array.from({ length: %d }, (_, i) => ({
        get from() { cube.reads++; return i * 1e8; }, to: i * 1e8 + 5e7, cpu: 0 }));
    const axisNow = { rowOf: (cpu) => cpu, size: 1, veils: () => [] };
    const own = Array.prototype[Symbol.iterator];
    let steps = 0;
    Array.prototype[Symbol.iterator] = function () {
        steps += this.length;
        return own.call(this);
    };
    const asked = () => {
        [steps, cube.reads] = [0, 0];
        const shapes = Bands.shapes({ cube, axisNow }, Theme.colours());
        return [steps, cube.reads, JSON.stringify(shapes)];
    };
    try { return [asked(), asked()]; } finally { Array.prototype[Symbol.iterator] = own; }
}"""


def test_many_losses_are_gone_through_once(open_report: Callable[..., Report]) -> None:
    report = open_report()
    first, again = report.page.evaluate(WORK % LOSSES)
    assert LOSSES <= first[0] < 10 * LOSSES
    assert first[1] >= LOSSES
    assert again[1] == 0
    assert again[2] == first[2]


def test_bands_are_of_the_rows_that_are_shown(open_report: Callable[..., Report]) -> None:
    lost = {"name": "ring_full", "class": "loss", "value": 1, "cpu": 1}
    counters = [lost | {"start_ns": i * SECOND, "end_ns": i * SECOND + 1} for i in (2, 7)]
    report = open_report(counters=counters)
    path = "document.getElementById('heatmap').layout.shapes[0].path"
    whole = report.page.evaluate(path)
    report.show("axis=cpu")
    of_one = report.page.evaluate(path)
    assert len({whole, of_one}) == 2
    assert whole.count("M") == of_one.count("M") == 2
    report.show("axis=kind")
    assert report.page.evaluate(path) == whole
    report.show("axis=cpu&cells=0-9,0-0")
    assert report.page.evaluate(path) == of_one
