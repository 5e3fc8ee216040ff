"""Names that are too long for their place still tell apart what they name."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest

from tests.browser.report import HOSTILE, Report
from tests.support.traces import SECOND

pytestmark = pytest.mark.browser

PODS = [f"/kubepods.slice/kubepods-pod{i:02}4d7e.slice/cri-containerd.scope" for i in range(8)]


def test_pods_that_differ_in_the_middle_do_not_look_alike(
    open_report: Callable[..., Report],
) -> None:
    culprit = {"culprit_pid": 7, "culprit_tid": 7, "culprit_ns": 900, "culprit_comm": "x"}
    rows = [{"cgroup": a, "culprit_cgroup": b, **culprit} for a in PODS for b in PODS]
    report = open_report(rows)
    report.show("axis=cgroup")
    tables = "#tables .table:has(caption:text('By cgroup')) tbody .name"
    for places in (
        "#heatmap .ytick text",
        ".matrix thead .name",
        ".matrix tbody .name",
        ".sankey text[text-anchor=start]:not(.side)",
        ".sankey text[text-anchor=end]:not(.side)",
    ):
        shown = report.page.locator(places).all_text_contents()
        assert len(set(shown)) == len(shown) >= len(PODS), places
    shown = report.page.locator(tables).all_text_contents()
    assert len(set(shown)) == len(shown) == len(PODS)
    titles = report.page.locator(tables).evaluate_all("all => all.map(n => n.title)")
    assert sorted(titles) == PODS
    report.show("axis=cgroup&cells=0-299,0-1")
    one, other = report.text("#figures .figures-title").split(": ")[1].split(", ")[:2]
    assert one != other
    left = report.page.locator("#heatmap .ytick text").evaluate_all(
        "all => Math.min(...all.map(t => t.getBoundingClientRect().left))"
    )
    assert left >= report.page.locator("#heatmap").evaluate("n => n.getBoundingClientRect().left")


def test_short_forms_differ_wherever_names_do(open_report: Callable[..., Report]) -> None:
    report = open_report()
    rng = np.random.default_rng(5)

    def some(letters: int) -> str:
        return "".join(rng.choice(list("ab/é😀"), letters))

    lists = [[*HOSTILE], ["a" * 30, "a" * 31, "a" * 60], ["same" * 9] * 2]
    for _ in range(60):
        head, tail = some(rng.integers(0, 40)), some(rng.integers(0, 40))
        lists.append([head + some(rng.integers(0, 30)) + tail for _ in range(12)])
    for length in (9, 15, 24, 36):
        found = report.page.evaluate(
            "([lists, length]) => lists.map(names => names.map(Text.shorts(names, length)))",
            [lists, length],
        )
        for names, forms in zip(lists, found, strict=True):
            assert len(set(forms)) == len(set(names)), (names, forms)
            assert max(map(len, forms)) <= length


# Where two pieces of an element's text are drawn.
LEFTS = """(node, pieces) => {
    const text = node.lastChild;
    return pieces.map((piece) => {
        const range = document.createRange();
        const at = text.data.indexOf(piece);
        range.setStart(text, at);
        range.setEnd(text, at + piece.length);
        return range.getBoundingClientRect().left;
    });
}"""


def test_names_from_right_to_left_leave_numbers_where_they_are(
    open_report: Callable[..., Report],
) -> None:
    names = ["\u05d0\u05d1\u05d2", "\u0645\u0631\u062d\u0628\u0627", "web"]
    report = open_report(
        [
            {"end_ns": i * SECOND, "wait_ns": i * 5_000_000, "comm": name, "culprit_comm": name}
            | {"culprit_pid": 7, "culprit_tid": 7, "culprit_ns": 900}
            for i, name in enumerate(names, 1)
        ]
    )
    alone = report.page.locator("#tables .name").first
    assert alone.evaluate("node => getComputedStyle(node).unicodeBidi") == "isolate"
    for y, name in ((2, "web"), (1, names[1]), (0, names[0])):
        report.show(f"axis=comm&blame=comm&cells=1-200,{y}-{y}")
        title = report.page.locator("#figures .figures-title")
        label = title.inner_text()
        assert name in label
        first, last = label.partition(": ")[2].rpartition(", ")[2].split(" to ")
        shown = title.evaluate(LEFTS, [name, first, last])
        assert shown == sorted(shown), name
        assert ("\u2066" in label) == (name != "web")


def test_only_names_from_right_to_left_are_set_apart(open_report: Callable[..., Report]) -> None:
    report = open_report()
    shown = [
        letter
        for letter in map(chr, range(sys.maxunicode))
        if unicodedata.category(letter)[0] not in "CZ"
    ]
    found = report.page.evaluate("names => names.map(name => Text.inline(name))", shown)
    for letter, text in zip(shown, found, strict=True):
        if unicodedata.bidirectional(letter) in ("R", "AL"):
            assert text == f"\u2066{letter}\u2069"
        elif unicodedata.bidirectional(letter) == "L" and not text.startswith("\\"):
            assert text == letter
    report.show("axis=cgroup&cells=0-299,0-0&with=0-299,1-1")
    assert "\u2066" not in report.page.content()


@pytest.mark.parametrize("name", ["constructor", "toString", "__proto__"])
def test_kinds_that_are_called_what_every_object_has(
    open_report: Callable[..., Report], name: str
) -> None:
    rows = [{"end_ns": i * SECOND, "kind": name, "wait_ns": 5000} for i in range(1, 9)]
    report = open_report([*rows, {"end_ns": SECOND}])
    assert report.page.is_hidden("#failure")
    report.show(f"axis=kind&kinds={name}&cells=0-299,0-0")
    assert report.figures["rows"] == [name]
    assert report.figures["count"] == 8
    assert f"Selected: {name}, " in report.text("#figures .figures-title")
