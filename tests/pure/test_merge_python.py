"""Merged traces: each recording numbers the places in Python code as it comes across them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sltrace.analysis.frames import resolve_stacks
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, clock, trace_of
from tests.support.traces import SECOND

FIRST = 1 << 63
PID, STACK, GO_STACK, GO_PLACE = 7, 1 << 62, 6, 0x401000
COLUMNS = ("stack_runtime", "waker_stack_runtime", "culprit_stack")


def recorded(folder: Path, number: int, names: list[str], host: str = "one") -> Trace:
    """A service that slept in one place, came there from another, and asked Go for something."""
    start = (100 + 100 * number) * SECOND
    python, go = ({"space": space, "pid": PID} for space in ("python", "go"))
    go["program"] = 3
    return trace_of(
        folder,
        f"{host}{number}",
        [
            {"end_ns": start + SECOND, "kind": "gil", "comm": f"{host}{number}", "pid": PID}
            | dict.fromkeys(COLUMNS, STACK),
            {"end_ns": start + SECOND, "kind": "goroutine", "stack_runtime": GO_STACK, "pid": PID},
        ],
        host,
        UNIX,
        meta={"clock": clock(UNIX, start)},
        samples=[{"ns": start, "source": "cpu", "pid": PID, "stack_runtime": STACK}],
        stacks=[
            python | {"stack_id": STACK, "addresses": [FIRST + i for i in range(len(names))]},
            go | {"stack_id": GO_STACK, "addresses": [GO_PLACE]},
        ],
        frames=[
            *(python | {"address": FIRST + i, "name": name} for i, name in enumerate(names)),
            go | {"address": GO_PLACE, "name": "main.serve"},
        ],
    )


def named(trace: Trace) -> dict[str, set[tuple[str, ...]]]:
    """Of each recording, by the name of its thread, the stacks of its waits."""
    found: dict[str, set[tuple[str, ...]]] = {}
    rows = trace.sql("SELECT comm, " + ", ".join(COLUMNS) + " FROM waits WHERE kind = 'gil'")
    for row in rows.to_pylist():
        ids = np.array(sorted({row[name] for name in COLUMNS}), np.int64)
        stacks = resolve_stacks(trace, ids)
        found[row["comm"]] = {
            tuple(stacks.frames[i].name for i in stack) for stack in stacks.stacks.values()
        }
    sampled = trace.sql("SELECT DISTINCT stack_runtime FROM samples").column(0).to_pylist()
    told = trace.sql("SELECT stack_id FROM stacks WHERE space = 'python'").column(0).to_pylist()
    assert sorted(sampled) == sorted(told)
    return found


NAMES = {"one0": ["leaf", "zeta"], "one1": ["alpha"], "one2": ["root", "leaf", "beta"]}


def three(folder: Path) -> list[Trace]:
    return [recorded(folder, i, names) for i, names in enumerate(NAMES.values())]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_recordings_of_one_machine_have_names_of_their_own(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    traces = three(tmp_path)
    parts = merge([traces[i] for i in order], tmp_path / "m.slt")
    assert {p.machine for p in parts} == {0}
    merged = Trace.open(tmp_path / "m.slt")
    assert named(merged) == {name: {tuple(reversed(of))} for name, of in NAMES.items()}
    # A program of Go has one number in all of them.
    go = merged.sql("SELECT DISTINCT stack_runtime FROM waits WHERE kind = 'goroutine'")
    assert go.column(0).to_pylist() == [GO_STACK]
    stacks = resolve_stacks(merged, np.array([GO_STACK]))
    assert [f.name for f in stacks.frames] == ["main.serve"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("host", ["one", "two"])
def test_so_they_have_when_merged_again(tmp_path: Path, first: bool, host: str) -> None:
    traces = three(tmp_path)
    other = recorded(tmp_path, 3, ["other", "main"], host)
    for name, parts in (("a.slt", traces[:2]), ("b.slt", [traces[2], other])):
        merge(parts, tmp_path / name)
    whole = [Trace.open(tmp_path / name) for name in ("a.slt", "b.slt")]
    if host != "one":
        # Of two machines, one of which is in both, there is nothing to merge.
        whole[1] = other
    merge(whole if first else whole[::-1], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    wanted = {name: {tuple(reversed(of))} for name, of in NAMES.items()}
    wanted[f"{host}3"] = {("main", "other")}
    if host != "one":
        del wanted["one2"]
    assert named(merged) == wanted
    assert len({m["python_xor"] for m in merged.meta["merged"]}) == len(wanted)
