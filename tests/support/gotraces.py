"""A trace of a Go process made by hand: its stacks, and rows of its goroutines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

FRAMES = {
    1: "runtime.gopark",
    2: "main.waits",
    3: "main.start",
    4: "runtime.goexit",
    5: "main.wakes",
    6: "time.Sleep",
    7: "runtime.bgsweep",
    8: "runtime.systemstack_switch",
}
STACKS = {
    11: [1, 2, 3, 4],
    12: [5, 3, 4],
    13: [1, 6, 2, 3, 4],
    14: [1, 7, 4],
    15: [1],
    16: [8, 7, 4],
}
TARGET = {"pid": 100, "runtime": "go", "version": "go1.27.3", "exe": "/x", "level": 2, "why": ""}


def made(folder: Path, waits: list[dict[str, Any]] = [], **tables: Any) -> Trace:  # noqa: B006
    return Trace.open(
        make_trace(
            folder,
            waits,
            targets=[TARGET],
            stacks=[
                {"stack_id": number, "space": "go", "pid": 100, "addresses": addresses}
                for number, addresses in STACKS.items()
            ],
            frames=[
                {"space": "go", "pid": 100, "address": a, "name": n, "module": "x",
                 "build_id": "", "language": "go"}
                for a, n in FRAMES.items()
            ],
            **tables,
        )
    )  # fmt: skip


def waited(kind: str, ns: int, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "wait_ns": ns, "goid": 7, "stack_runtime": 11, "sampled": 8, **more}
