"""Where the record of a thread is, of a library that is being loaded."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace

import pytest

from sltrace.symbols.elf import Relocation
from sltrace.symbols.mappings import Mapping, MappingRecorder
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
        assert seen == {"/other"}
        slot.value = -64
        assert find_thread_record(1, memory, seen) == ThreadRecord(0, -64)
    finally:
        memory.close()
