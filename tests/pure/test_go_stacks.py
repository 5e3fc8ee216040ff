"""Stacks of goroutines: each is written once, whoever tells of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture.golang import rows
from sltrace.capture.golang import stacks as module
from sltrace.capture.golang.stacks import GoStacks
from sltrace.capture.sources import Rows
from sltrace.target.go.pclntab import Location
from sltrace.target.go.process import GoProcess, Identity

RECORD = np.dtype(
    [
        *(("id", "<u8"), ("pid", "<u4"), ("depth", "<u4"), ("target", "<u4"), ("program", "<u4")),
        ("addresses", "<u8", (4,)),
    ]
)
PROCESS = cast(GoProcess, SimpleNamespace(number=21, pid=1, program=31))


def records(*found: tuple[int, int, list[int]]) -> NDArray[Any]:
    """Of (id, pid, addresses); what is beyond the depth is left from another stack."""
    made = np.full(len(found), 99, RECORD)
    for record, (number, pid, addresses) in zip(made, found, strict=True):
        record["id"], record["pid"], record["depth"] = number, pid, len(addresses)
        record["target"], record["program"] = 20 + pid, 30 + pid
        record["addresses"][: len(addresses)] = addresses
    return made


def written(rows: Rows) -> dict[int, tuple[int, list[int]]]:
    """Process and addresses by id."""
    found = {}
    for table, data in rows:
        assert table == "stacks"
        for row in data.to_pylist():
            assert (row["space"], row["program"]) == ("go", 30 + row["pid"])
            found[row["stack_id"]] = row["pid"], row["addresses"]
    return found


def test_each_is_written_once_by_whichever_comes_first() -> None:
    stacks = GoStacks()
    told = records((7, 1, [10, 11]), (8, 2, [10]), (7, 1, [10, 11]))
    assert written(stacks.recorded(told)) == {7: (1, [10, 11]), 8: (2, [10])}
    assert written(stacks.recorded(told)) == {}
    assert written(stacks.sampled(PROCESS, {7: [10, 11], 9: [12], 6: []})) == {
        9: (1, [12]),
        6: (1, []),
    }
    assert written(stacks.recorded(records((9, 1, [12]), (5, 2, [])))) == {5: (2, [])}
    assert stacks.addresses == {21: {10, 11, 12}, 22: {10}}
    assert stacks.refused == 0


def test_addresses_that_are_too_many_take_their_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ADDRESSES", 3)
    stacks = GoStacks()
    told = records((1, 1, [1, 2]), (2, 1, [3, 4]), (3, 1, [2, 3]), (4, 2, [1]))
    assert written(stacks.recorded(told)) == {1: (1, [1, 2]), 3: (1, [2, 3])}
    assert written(stacks.sampled(PROCESS, {5: [1, 5], 6: [1, 3]})) == {6: (1, [1, 3])}
    assert written(stacks.recorded(records((7, 2, [1])))) == {}
    assert stacks.addresses[21] == {1, 2, 3}
    assert stacks.refused == 4


def test_addresses_are_named_in_pieces_and_in_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes as long as its table is, which is as the program has it."""
    now = iter(range(1000))
    monkeypatch.setattr(rows, "_PIECE", 4)
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(now))

    def locate(address: int, *, placed: bool) -> Location:
        return Location("f", "f.go" if placed else "", address if placed else 0)

    process = SimpleNamespace(
        table=SimpleNamespace(locate=locate), bias=0, pid=1, program=31,
        identity=Identity(1, "/svc", "go1.26.6", ""), image=SimpleNamespace(data=b""),
    )  # fmt: skip
    found = [(cast(GoProcess, process), {n + 1 for n in range(10)})]
    made = list(rows.frames(found, cpu_ns=7))
    assert [len(table) for table in made] == [4, 4, 2]
    lines = [row["line"] for table in made for row in table.to_pylist()]
    assert lines == [None, 1, 2, 3, 4, 5, *[None] * 4]


def test_those_that_are_too_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STACKS", 2)
    stacks = GoStacks()
    assert len(written(stacks.recorded(records((1, 1, [1]), (2, 1, [2]), (3, 1, [3]))))) == 2
    assert written(stacks.sampled(PROCESS, {4: [4]})) == {}
    assert stacks.refused == 2
    assert len(stacks.addresses[21]) == 2
