"""Readers of another process's memory: published layouts, line tables, hostile memory."""

from __future__ import annotations

import os
import random
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.capture.python.frames import UNREADABLE, FrameTable
from sltrace.target.memory import MAX_READ, Memory, Unreadable
from sltrace.target.python import interpreter as finding
from sltrace.target.python.code import Code, read_code
from sltrace.target.python.interpreter import Interpreter, NotReady
from sltrace.target.python.layout import (
    COOKIE,
    DEBUG_OFFSETS_BYTES,
    UnknownLayout,
    is_free_threaded,
    layout_for,
)
from sltrace.target.python.modules import Modules
from sltrace.target.python.objects import Objects
from sltrace.target.python.otel import (
    MODULES,
    NoOpenTelemetry,
    find_nodes,
    find_otel,
    find_record,
)
from sltrace.target.python.tasks import find_tasks

_START = 1 << 20
_BASE = 0x10000
_SIZE = 1 << 16


def _published(minor: int, **changed: int) -> bytes:
    """What 3.13 and later publish, with the offsets of 3.13.0; `changed` by position."""
    values = [
        512, 0, 632,
        8000, 7272, 7264, 7344, *([0] if minor >= 14 else []), 7400, 7656, 0, 0, 16, 7752, 0, 0, 0,
        *([0, 0] if minor >= 14 else []),
        304, 0, 8, 16, 72, 152, 160, 0, 0,
        80, 8, 0, 56, 72, 70, *([64, 0] if minor >= 14 else []),
        208, 112, 120, 128, 136, 68, 52, 96, 104, 200,
    ]  # fmt: skip
    for position, value in changed.items():
        values[int(position[1:])] = value
    version = 3 << 24 | minor << 16 | 0xF0
    return struct.pack(f"<8sQQ{len(values)}Q", COOKIE, version, 0, *values).ljust(
        DEBUG_OFFSETS_BYTES, b"\0"
    )


def test_published_offsets_are_taken() -> None:
    layout = layout_for(13, _published(13))
    assert (layout.threads, layout.thread_id, layout.frame) == (7344, 152, 72)
    assert (layout.modules, layout.code_start, layout.linetable) == (7656, 200, 136)
    assert layout.frame_bytes == 72
    assert not layout.tagged
    newer = layout_for(14, _published(14))
    assert (newer.threads, newer.thread_id, newer.frame) == (7344, 152, 72)
    assert (newer.modules, newer.code_start, newer.linetable) == (7656, 200, 136)
    assert newer.tagged


@pytest.mark.parametrize(
    ("minor", "runtime"),
    [
        (9, b""),
        (15, _published(14)),
        (13, b"\0" * DEBUG_OFFSETS_BYTES),
        (14, _published(13)),
        (13, _published(13, p2=1 << 40)),
        (13, _published(13, p30=4096)),
    ],
)
def test_what_is_not_known_is_refused(minor: int, runtime: bytes) -> None:
    with pytest.raises(UnknownLayout):
        layout_for(minor, runtime)


@settings(max_examples=300)
@given(
    st.integers(0, 2**32),
    st.sampled_from((13, 14)),
    st.integers(0, 40),
    st.one_of(st.integers(0, 300), st.integers(0, 1 << 20)),
)
def test_offsets_that_a_process_made_up_do_no_harm(
    seed: int, minor: int, position: int, value: int
) -> None:
    """Each published offset is the process's own word."""
    try:
        layout = layout_for(minor, _published(minor, **{f"p{position}": value}))
    except UnknownLayout:
        return
    memory = Hostile(seed)
    python = Interpreter("3.x", "", "", "", 0, layout, _BASE, _BASE, _BASE, 1, 0)
    for address in range(_BASE, _BASE + 4096, 512):
        _bounded(_a_line, memory, layout, address)
    _bounded(finding._check, 1, memory, layout, _BASE + 64, Path("/nowhere"))
    _bounded(Modules(MODULES).imported, memory, python)
    _bounded(find_otel, memory, python, dict.fromkeys(MODULES, _BASE))


def test_modules_are_gone_through_again_only_when_there_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = 0

    class Counted(Memory):
        def read(self, address: int, size: int) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(address, size)

    memory = Counted(os.getpid())
    python = finding.find(os.getpid(), memory, set())
    modules = Modules(("json", "imported_late"))
    assert list(modules.imported(memory, python)) == ["json"]
    reads = 0
    assert list(modules.imported(memory, python)) == ["json"]
    assert reads == 3
    monkeypatch.setitem(sys.modules, "imported_late", ModuleType("imported_late"))
    assert sorted(modules.imported(memory, python)) == ["imported_late", "json"]
    monkeypatch.delitem(sys.modules, "imported_late")
    assert list(modules.imported(memory, python)) == ["json"]


def test_a_build_without_gil_is_told() -> None:
    runtime = bytearray(_published(13))
    assert not is_free_threaded(bytes(runtime))
    runtime[16] = 1
    assert is_free_threaded(bytes(runtime))


@pytest.mark.parametrize("code", [read_code.__code__, finding.find.__code__, Objects.text.__code__])
def test_lines_are_those_of_the_code_itself(code: Any) -> None:
    """This interpreter is 3.11 or later; co_positions decodes the table its own way."""
    ours = Code("", "", code.co_firstlineno, code.co_linetable, _START, coroutine=False)
    for unit, positions in enumerate(code.co_positions()):
        assert ours.line(_START + 2 * unit) == positions[0]
    assert ours.line(_START - 2) == code.co_firstlineno
    assert ours.line(_START + 2 * (unit + 1)) is None


@given(st.binary(max_size=300), st.integers(-5, 10_000), st.integers(-(2**31), 2**31 - 1))
def test_any_line_table_ends(table: bytes, unit: int, first: int) -> None:
    for start in (0, _START):
        line = Code("", "", first, table, start, coroutine=False).line(start + unit)
        assert line is None or -(2**31) <= line < 2**31


def test_lines_of_3_10_may_be_none() -> None:
    # Two instructions at the first line, one of none, one two lines on and one before all.
    code = Code("", "", 7, bytes((4, 0, 2, 128, 2, 2, 2, 252)), 0, coroutine=False)
    assert [code.line(i) for i in range(6)] == [7, 7, None, 9, 5, None]


class Hostile(Memory):
    """Memory of random words, many of which point back into it, so that lists have loops."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        words = [
            _BASE + chance.randrange(_SIZE // 8) * 8
            if chance.random() < 0.7
            else chance.choice((0, 1, chance.getrandbits(64), chance.randrange(1 << 16)))
            for _ in range(_SIZE // 8)
        ]
        self._data = struct.pack(f"<{len(words)}Q", *words)
        self.pid = 1
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        assert size <= MAX_READ
        if not (size >= 0 and address >= _BASE and address + size <= _BASE + _SIZE):
            raise Unreadable("outside")
        return self._data[address - _BASE : address - _BASE + size]

    def close(self) -> None:
        return


def _layouts() -> list[Any]:
    found = [layout_for(m, b"") for m in (10, 11, 12)]
    found += [layout_for(m, _published(m)) for m in (13, 14)]
    # Offsets within the memory there is.
    return [
        replace(x, threads=x.threads % 4096, modules=x.modules % 4096, interpreters=32)
        for x in found
    ]


_EXPECTED = (Unreadable, NoOpenTelemetry, NotReady, ValueError)


def _bounded(read: Callable[..., object], *arguments: object) -> None:
    try:
        read(*arguments)
    except _EXPECTED:
        return


def _a_line(memory: Memory, layout: Any, address: int) -> int | None:
    return read_code(memory, layout, address).line(address)


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_readers_of_hostile_memory_end_and_fail_in_one_way(seed: int) -> None:
    begin = time.process_time()
    for layout in _layouts():
        memory = Hostile(seed)
        objects = Objects(memory, layout)
        python = Interpreter(
            "3.x", "", "", "", 0, layout, _BASE + 64, _BASE + 128, _BASE + 256, 1, 0
        )
        chance = random.Random(seed)
        for _ in range(20):
            at = _BASE + chance.randrange(_SIZE // 8) * 8
            _bounded(objects.text, at)
            _bounded(objects.attribute, at, "_current_context")
            _bounded(objects.dict_get, at, "name")
            _bounded(_a_line, memory, layout, at)
        _bounded(Modules(("name", *MODULES)).imported, memory, python)
        modules = {name: _BASE + chance.randrange(_SIZE // 8) * 8 for name in MODULES}
        _bounded(find_otel, memory, python, modules)
        _bounded(find_record, memory, python, modules)
        _bounded(find_nodes, memory, python, Path("/nowhere"))
        _bounded(find_tasks, memory, python, _BASE, Path("/nowhere"))
        _bounded(finding._check, 1, memory, layout, _BASE + 64, Path("/nowhere"))
        assert memory.reads < 3_000_000
    assert time.process_time() - begin < 20


def test_a_stack_of_nothing_is_named_as_such() -> None:
    import numpy as np

    frame = np.dtype([("code", "<u8"), ("instr", "<u8")])
    stack = np.dtype([("id", "<u8"), ("pid", "<u4"), ("depth", "<u4"), ("frames", frame, (4,))])
    records = np.zeros(2, stack)
    records["id"] = (5, 5)
    records["pid"] = 1
    records["depth"] = 3
    layout = layout_for(12, b"")
    python = Interpreter("3.12", "", "", "", 0, layout, 0, 0, 0, 1, 99)
    table = FrameTable(lambda pid: [(Hostile(1), python)], {})
    stacks, frames = table.add(records)
    assert stacks.num_rows == 1
    assert frames["name"].to_pylist() == [UNREADABLE]
    assert len(stacks["addresses"][0]) == 3
    assert table.unreadable
