"""Where the record of a thread is, of a library that is being loaded."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace

import pytest

from sltrace.symbols.elf import Relocation
from sltrace.symbols.mappings import Mapping, MappingRecorder
from sltrace.target import threadrecord
from sltrace.target.memory import Memory
from sltrace.target.threadrecord import ThreadRecord, find_thread_record

_TPOFF64 = 18


def test_a_library_is_looked_at_until_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is mapped some time before the loader writes where its variables are."""
    slot = ctypes.c_int64(0)
    relocation = Relocation(ctypes.addressof(slot), _TPOFF64, 0)
    holder = SimpleNamespace(relocations=lambda _: [relocation], bias=lambda *_: 0)
    other = SimpleNamespace(relocations=lambda _: [], bias=lambda *_: 0)
    elfs = {"/holder": holder, "/other": other, "/unreadable": None}
    jit = [Mapping(n, n + 1, 0, "", "") for n in range(1000)]
    files = [Mapping(0, 1, 0, path, path) for path in elfs]
    monkeypatch.setattr(MappingRecorder, "read_maps", lambda *_: [*jit, *files])
    monkeypatch.setattr(MappingRecorder, "open_elf", lambda _, _pid, mapping: elfs[mapping.path])
    memory, seen = Memory(os.getpid()), set[str]()
    try:
        assert find_thread_record(1, memory, seen) is None
        assert seen == {"/other /other"}
        slot.value = -64
        assert find_thread_record(1, memory, seen) == ThreadRecord(0, -64)
    finally:
        memory.close()


def test_how_one_process_maps_a_file_says_nothing_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files that have no record are those of all processes."""
    slot = ctypes.c_int64(-64)
    relocation = Relocation(ctypes.addressof(slot), _TPOFF64, 0)
    holder = SimpleNamespace(
        relocations=lambda _: [relocation], bias=lambda start, _: None if start == 0 else 0
    )
    monkeypatch.setattr(MappingRecorder, "open_elf", lambda *_: holder)
    memory, seen = Memory(os.getpid()), set[str]()
    try:
        for start, found in ((0, None), (4096, ThreadRecord(0, -64))):
            mapping = Mapping(start, start + 1, 0, "/holder", "8:1/5")
            monkeypatch.setattr(MappingRecorder, "read_maps", lambda *_, m=mapping: [m])
            assert find_thread_record(1, memory, seen) == found
    finally:
        memory.close()


def test_files_without_one_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program can map new ones for ever."""
    other = SimpleNamespace(relocations=lambda _: [], bias=lambda *_: 0)
    monkeypatch.setattr(MappingRecorder, "open_elf", lambda *_: other)
    files = [Mapping(0, 1, 0, "/other", f"8:1/{n}") for n in range(500)]
    monkeypatch.setattr(MappingRecorder, "read_maps", lambda *_: files)
    monkeypatch.setattr(threadrecord, "_MAX_SEEN", 300)
    memory, seen = Memory(os.getpid()), set[str]()
    try:
        assert find_thread_record(1, memory, seen) is None
    finally:
        memory.close()
    assert len(seen) == 300
