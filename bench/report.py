"""The report of a large machine: how long it takes to make, how large it is, how fast it answers.

    python -m bench.report [--waits 1000000 10000000] [--repeats 3] [--check]

256 CPUs, 2,000 cgroups of very different size, 100,000 distinct stacks. Opening counts until the
page is drawn; a selection counts from the key that makes it until the frame that shows it, and the
slowest of the gestures must be within the bound.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bench.results import spread, write
from heatmaps.page import Page, build_page
from sltrace.trace.reader import Trace
from sltrace.trace.schema import arrow_schema
from sltrace.trace.writer import TraceWriter
from tests.support.traces import META, WAIT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "/usr/bin/chromium"
SECOND = 1_000_000_000
SEGMENT = 250_000
DURATION = 100 * SECOND
CPUS = 256
CGROUPS = 2000
STACKS = 50
"""Of each cgroup."""
DEPTH = 24
KERNEL_STACKS = 40
FUNCTIONS = 20_000

MOST_BYTES = 15_000_000
MOST_OPEN_S = 3.0
MOST_ANSWER_MS = 100.0

# From the fullest cell: a tenth of the time, then more latencies with each key.
KEYS = [("ArrowLeft", ""), *[("ArrowLeft", "shift+ctrl")] * 3, *[("ArrowDown", "shift+ctrl")] * 5]
ANSWER = """async ([key, held]) => {
    const node = document.getElementById("heatmap");
    const start = performance.now();
    node.dispatchEvent(new KeyboardEvent("keydown",
        {key, shiftKey: held.includes("shift"), ctrlKey: held.includes("ctrl"), bubbles: true}));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - start;
}"""


def make(folder: Path, waits: int) -> Path:
    """Writes the trace, in segments as the recorder does."""
    nodes = {str(n): list(range(n * 64, (n + 1) * 64)) for n in range(CPUS // 64)}
    clock = META["clock"] | {"end_ns": DURATION}
    path = folder / f"{waits}.slt"
    writer = TraceWriter.create(path, META | {"clock": clock, "cpus": CPUS, "nodes": nodes})
    rng = np.random.default_rng(1)
    for start in range(0, waits, SEGMENT):
        n = min(SEGMENT, waits - start)
        writer.append("waits", _waits(rng, n, DURATION * start // waits, DURATION * n // waits))
    stacks, frames = _stacks(np.random.default_rng(2))
    writer.append("stacks", stacks)
    writer.append("frames", frames)
    writer.close()
    return path


def _waits(rng: np.random.Generator, n: int, start_ns: int, span_ns: int) -> pa.Table:
    def text(index: Any, values: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(values))

    # A few services do most of the waiting, each in a few places, on any CPU.
    cgroup = np.minimum(rng.zipf(1.3, n) - 1, CGROUPS - 1)
    stack = np.minimum(rng.zipf(1.6, n) - 1, STACKS - 1)
    culprit = np.minimum(rng.zipf(1.5, n) - 1, CGROUPS - 1)
    wait = rng.lognormal(9.0 + cgroup % 7 / 3, 1.5, n).astype(np.int64)
    cpu = rng.integers(0, CPUS, n)
    columns: dict[str, Any] = {
        name: pa.array([value]).take(pa.array(np.zeros(n, np.int32)))
        for name, value in WAIT.items()
    }
    columns |= {
        "end_ns": pa.array(np.sort(rng.integers(0, span_ns, n)) + start_ns),
        "wait_ns": pa.array(wait),
        "kind": text(
            rng.choice(3, n, p=[0.7, 0.2, 0.1]), ["runq_wakeup", "runq_preempt", "throttled"]
        ),
        "pid": pa.array(100 + cgroup),
        "cpu": pa.array(cpu),
        "node": pa.array(cpu // 64),
        "cgroup": text(cgroup, [f"/kubepods/burstable/pod{i:04}" for i in range(CGROUPS)]),
        "comm": text(cgroup % 400 * 2 + stack % 2, [f"worker-{i}" for i in range(800)]),
        "policy": text(rng.choice(2, n, p=[0.98, 0.02]), ["OTHER", "FIFO"]),
        "culprit_pid": pa.array(100 + culprit),
        "culprit_tid": pa.array(100 + culprit),
        "culprit_comm": text(culprit % 400 * 2, [f"worker-{i}" for i in range(800)]),
        "culprit_cgroup": text(culprit, [f"/kubepods/burstable/pod{i:04}" for i in range(CGROUPS)]),
        "culprit_ns": pa.array((wait * rng.uniform(0.2, 1, n)).astype(np.int64)),
        "culprit_others": pa.array(rng.integers(0, 3, n)),
        "stack_user": pa.array(1000 + cgroup * STACKS + stack),
        "stack_kernel": pa.array(1 + stack % KERNEL_STACKS),
    }
    schema = pa.schema([f for f in arrow_schema("waits") if f.name in columns])
    return pa.table({f.name: columns[f.name].cast(f.type) for f in schema}, schema)


def _stacks(rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """Stacks that share their beginnings as those of one program do, and names for the frames."""
    users = CGROUPS * STACKS
    # Stack i of a program leaves the path of the one before at a random depth.
    addresses = rng.integers(0, FUNCTIONS, (users, DEPTH))
    for i in range(users):
        if i % STACKS:
            shared = rng.integers(1, DEPTH)
            addresses[i, :shared] = addresses[i - 1, :shared]
    rows = [
        {"stack_id": 1000 + i, "space": "user", "pid": 100 + i // STACKS, "addresses": a[::-1] + 1}
        for i, a in enumerate(addresses)
    ] + [
        {"stack_id": 1 + i, "space": "kernel", "pid": 0, "addresses": rng.integers(1, 400, 8)}
        for i in range(KERNEL_STACKS)
    ]
    used = np.unique(
        np.repeat(np.arange(users) // STACKS, DEPTH) * FUNCTIONS + addresses.reshape(-1)
    )
    pids, functions = 100 + used // FUNCTIONS, used % FUNCTIONS
    frames = pa.table(
        {
            "space": ["user"] * len(used) + ["kernel"] * 400,
            "pid": np.concatenate([pids, np.zeros(400, np.int64)]),
            "address": np.concatenate([functions + 1, np.arange(1, 401)]),
            "name": [f"service::module_{f % 97}::function_{f}" for f in functions]
            + [f"kernel_function_{i}" for i in range(400)],
            "language": ["native"] * len(used) + ["kernel"] * 400,
        }
    )
    wanted = pa.schema([f for f in arrow_schema("frames") if f.name in frames.column_names])
    table = pa.table({f.name: frames[f.name].cast(f.type) for f in wanted}, wanted)
    return pa.Table.from_pylist(rows, arrow_schema("stacks")), table


def measure(browser: Browser, folder: Path, waits: int, repeats: int) -> dict[str, Any]:
    """Times of one size; seconds and milliseconds."""
    trace = Trace.open(make(folder, waits))
    start = time.monotonic()
    page: Page = build_page(trace)
    built = time.monotonic() - start
    file = folder / "report.html"
    file.write_bytes(page.html)
    opened, answers = [], []
    for _ in range(repeats):
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        start = time.monotonic()
        tab.goto(file.as_uri())
        tab.wait_for_selector("#main[aria-busy=false]", timeout=60_000)
        opened.append(time.monotonic() - start)
        answers.append([tab.evaluate(ANSWER, [key, held]) for key, held in KEYS])
        tab.close()
    return {
        "waits": waits,
        "rows": page.rows,
        "build_s": built,
        "bytes": len(page.html),
        "open_s": opened,
        # Of each gesture: the slowest one is what a user remembers.
        "answer_ms": [statistics.median(times) for times in zip(*answers, strict=True)],
        "notes": list(page.notes),
    }


def over(found: dict[str, Any]) -> list[str]:
    """Which of the bounds one size exceeds."""
    bounds = (
        ("size", found["bytes"], MOST_BYTES),
        ("open", statistics.median(found["open_s"]), MOST_OPEN_S),
        ("answer", max(found["answer_ms"]), MOST_ANSWER_MS),
    )
    return [name for name, value, most in bounds if value > most]


def main() -> int:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--waits", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is exceeded")
    options = parser.parse_args()
    results = []
    with (
        TemporaryDirectory(prefix="sltrace-bench-") as folder,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless=new", "--no-sandbox", "--disable-gpu"]
        )
        results = [measure(browser, Path(folder), n, options.repeats) for n in options.waits]
        browser.close()
    rows = [
        [
            f"{r['waits']:,}",
            f"{r['rows']:,}",
            f"{r['build_s']:.1f}",
            f"{r['bytes'] / 1e6:.1f}",
            spread(r["open_s"]),
            spread(r["answer_ms"], 0),
            ", ".join(over(r)),
        ]
        for r in results
    ]
    header = ["waits", "cells", "build s", "page MB", "open s", "answer ms", "over"]
    title = (
        f"Reports of {CPUS} CPUs, {CGROUPS:,} cgroups, {CGROUPS * STACKS:,} stacks; at most "
        f"{MOST_BYTES / 1e6:g} MB, {MOST_OPEN_S:g} s, {MOST_ANSWER_MS:g} ms; median [min-max]"
    )
    print(write("report", title, header, rows, {"results": results}))
    return int(options.check and any(over(r) for r in results))


if __name__ == "__main__":
    sys.exit(main())
