"""A report open in a browser, and traces for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sltrace.trace.reader import Trace
from tests.support.traces import SECOND

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.pages import Pages

KINDS = ("runq_wakeup", "runq_preempt", "throttled", "blocked")
AWAKE = KINDS[:3]
HOSTILE = (
    '<img src=x onerror="window.pwned=1">',
    "</script><script>window.pwned=1</script>",
    '<a href="https://example.org/">link</a>',
    "<!--data-->$&`'&lt;b&gt;",
    "\u202egpj.exe\u2066\x1b[31m\n",
    "n" * 4096,
)


def waits(count: int = 3000) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    return [
        {
            "end_ns": int(rng.integers(0, 10 * SECOND)),
            "wait_ns": int(10 ** rng.uniform(2, 8.5)),
            "kind": KINDS[rng.integers(4)],
            "cpu": int(rng.integers(2)),
            "cgroup": f"/service-{rng.integers(3)}",
            "cgroup_id": 1,
            "policy": ("OTHER", "FIFO")[rng.integers(2)],
            "culprit_comm": f"hog-{rng.integers(3)}",
            "culprit_pid": 7,
            "culprit_tid": 7,
            "culprit_ns": 50,
            "stack_kernel": 1 + int(rng.integers(2)),
            "waker_stack_kernel": 3,
        }
        for _ in range(count)
    ]


STACKS = [
    {"stack_id": 1, "space": "kernel", "pid": 0, "addresses": [0x10, 0x20]},
    {"stack_id": 2, "space": "kernel", "pid": 0, "addresses": [0x30, 0x20]},
    {"stack_id": 3, "space": "kernel", "pid": 0, "addresses": [0x40]},
]
FRAMES = [
    {
        "space": "kernel",
        "pid": 0,
        "address": address,
        "name": name,
        "module": "[kernel]",
        "build_id": "",
        "language": "kernel",
    }
    for address, name in (
        (0x10, "futex_wait"),
        (0x20, "do_syscall"),
        (0x30, "pipe_read"),
        (0x40, "try_to_wake_up"),
    )
]


# As long as drawing takes that waits for the next frame.
DRAWN = """async () => {
    for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
}"""
# Waits until what follows from a new address is drawn.
SHOW = """async (hash) => {
    if (location.hash.slice(1) !== hash) {
        const changed = new Promise((done) => addEventListener("hashchange", done, {once: true}));
        location.hash = hash;
        await changed;
    }
    for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
}"""
# What is not in the address.
FORGET = """() => {
    document.activeElement.blur();
    scrollTo(0, 0);
    document.getElementById("heat-status").textContent = "";
    document.getElementById("flame-table").open = false;
    const search = document.getElementById("search");
    search.value = "";
    search.dispatchEvent(new Event("input"));
    document.getElementById("unzoom").click();
    const wanted = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    if (document.documentElement.dataset.theme !== wanted) document.getElementById("theme").click();
}"""

# All at once: of moves so close together Plotly looks at the last one after a while.
SEND = """([events, touch]) => {
    const target = document.querySelector("#heatmap .nsewdrag");
    for (const [what, clientX, clientY] of events) {
        const [bubbles, cancelable, buttons] = [true, true, what === "up" ? 0 : 1];
        const type = { down: "start", move: "move", up: "end" }[what];
        const points = [new Touch({ identifier: 1, target, clientX, clientY })];
        target.dispatchEvent(touch
            ? new TouchEvent("touch" + type, {
                bubbles, cancelable, touches: what === "up" ? [] : points, changedTouches: points })
            : new MouseEvent("mouse" + what, { bubbles, cancelable, buttons, clientX, clientY }));
    }
}"""
# Counts what Plotly tells of drags that select.
LISTEN = """() => {
    window.told = 0;
    document.getElementById("heatmap").on("plotly_selected", (e) => { if (e && e.range) told++; });
}"""

UNITS = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}


def limits(text: str) -> tuple[float, float]:
    """ns of `1.5 – 2 ms` and `900 µs – 1.1 ms`."""
    first, second = text.split(" – ")
    value, unit = second.split()
    low = first.split()
    return float(low[0]) * UNITS[low[-1] if len(low) > 1 else unit], float(value) * UNITS[unit]


class Report:
    """A page open in the browser, and what it said and asked for meanwhile."""

    def __init__(self, page: Page, url: str, trace: Trace) -> None:
        self.page = page
        self.trace = trace
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.url = url
        self._heard: dict[str, Callable[[Any], None]] = {
            "console": lambda m: self.complaints.append(f"{m.type}: {m.text}"),
            "pageerror": lambda e: self.complaints.append(str(e)),
            "request": lambda r: self.requests.append(r.url),
        }
        for event, heard in self._heard.items():
            page.on(event, heard)  # type: ignore[call-overload]
        self.visit(self.url)

    def visit(self, url: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(url)
        self.page.wait_for_selector("#main[aria-busy=false]")

    def show(self, view: str) -> None:
        """Goes to a view by its address, without loading the page again."""
        self.page.evaluate(SHOW, view)

    def begin_again(self) -> None:
        """Makes the page as it was when it was opened, for the next test."""
        self.page.mouse.move(0, 0)
        self.page.emulate_media(media="screen")
        # By way of another view: what is chosen but not in the address goes, too.
        self.show("axis=kind")
        self.show("")
        self.page.evaluate(FORGET)

    def close(self, pages: Pages, origin: str = "file") -> None:
        """Gives its page back."""
        for event, heard in self._heard.items():
            self.page.remove_listener(event, heard)
        pages.give_back(self.page, origin)

    def good(self) -> None:
        """Checks that it asked nobody for anything and had nothing to complain about."""
        asked = [url for url in self.requests if not url.startswith(("file:", "about:"))]
        assert asked == []
        assert self.complaints == []

    @property
    def figures(self) -> dict[str, Any]:
        data = self.page.locator("#figures").evaluate("node => ({...node.dataset})")
        return {name: json.loads(value) for name, value in data.items()}

    @property
    def frames(self) -> dict[str, int]:
        """Values of the flame graph's frames by label."""
        found = self.page.locator("#flame g.frame").evaluate_all(
            "all => all.map(g => [g.textContent, +g.dataset.value])"
        )
        return dict(found)

    @property
    def tip(self) -> list[str]:
        """Lines of the tooltip."""
        return self.text("#tip").splitlines()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def drag(self, left: float, top: float, right: float, bottom: float) -> None:
        """Selects a part of the plot, in shares of its width and height."""
        before = self.page.url
        self.drag_any(left, top, right, bottom)
        self.until(lambda: self.page.url != before)

    def until(self, happened: Callable[[], bool]) -> None:
        # Not wait_for_function: the page's policy forbids evaluating text.
        until = time.monotonic() + 60
        while not happened():
            if time.monotonic() > until:
                pytest.fail(f"it did not happen; the page is at {self.page.url}")
            self.page.wait_for_timeout(25)

    def settle(self) -> None:
        """Until what follows from what was done is drawn."""
        self.page.evaluate(DRAWN)

    def drag_any(self, left: float, top: float, right: float, bottom: float) -> None:
        """Drags, whatever that does."""
        box = self.page.locator("#heatmap .nsewdrag").bounding_box()
        assert box

        def at(x: float, y: float) -> tuple[float, float]:
            return box["x"] + x * box["width"], box["y"] + y * box["height"]

        self.page.mouse.move(*at(left, top))
        self.page.mouse.down()
        self.page.mouse.move(*at((left + right) / 2, (top + bottom) / 2), steps=3)
        self.page.mouse.move(*at(right, bottom), steps=3)
        self.page.mouse.up()

    def drag_meanwhile(self, happens: Callable[[], None], touch: bool = False) -> None:
        """Drags over the plot's middle; ends before Plotly has looked at where, and waits for that.

        Args:
            happens: While the drag is under way.
            touch: Whether by a finger.
        """
        box = self.page.locator("#heatmap .nsewdrag").bounding_box()
        assert box
        points = [
            (box["x"] + part * box["width"], box["y"] + part * box["height"])
            for part in (0.3, 0.4, 0.5, 0.6)
        ]
        self.page.evaluate(LISTEN)
        self.page.evaluate(SEND, [[["down", *points[0]], ["move", *points[1]]], touch])
        happens()
        rest = [["move", *points[2]], ["move", *points[3]], ["up", *points[3]]]
        self.page.evaluate(SEND, [rest, touch])
        self.until(lambda: self.page.evaluate("told") == 1)

    def by_duckdb(self, where: str = "true", kinds: tuple[str, ...] = AWAKE) -> tuple[int, int]:
        """Count and total of the waits in the page's selection, from the trace itself."""
        figures = self.figures
        named = ", ".join(f"'{kind}'" for kind in kinds)
        row = self.trace.sql(
            "SELECT count(*) AS n, coalesce(sum(wait_ns), 0)::BIGINT AS ns, "
            "coalesce(max(wait_ns), 0) AS longest FROM waits "
            f"WHERE kind IN ({named}) AND end_ns >= ? AND end_ns < ? AND ({where})",
            [figures["from"], figures["to"]],
        ).to_pylist()[0]
        return row["n"], row["ns"]

    def latency(self) -> str:
        low, high = self.figures["rows"]
        return f"wait_ns >= {low}" + (f" AND wait_ns < {high}" if high is not None else "")
