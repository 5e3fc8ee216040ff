"""Where a thread keeps the record of OTEP 4947, `otel_thread_ctx_v1`: ids of its current span."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sltrace.symbols.mappings import MappingRecorder
from sltrace.target.memory import Memory, Unreadable

SYMBOL = "otel_thread_ctx_v1"

_DTPMOD64, _TPOFF64, _TLSDESC = 16, 18, 36
_STATIC_MIN = -(1 << 30)
_MAX_MODULES = 4096
_MAX_FILES = 512
_MAX_SEEN = 1 << 14


@dataclass(frozen=True)
class ThreadRecord:
    """Place of the pointer to the record.

    Attributes:
        module: Index in the thread's dynamic vector; 0 if the place is `offset` from the thread
            pointer.
        offset: Bytes.
    """

    module: int
    offset: int


def find_thread_record(
    pid: int, memory: Memory, seen: set[str], proc: Path = Path("/proc")
) -> ThreadRecord | None:
    """Looks for a library that publishes the record; None if there is none, or not yet.

    Args:
        pid: Process.
        memory: Its memory.
        seen: Files that have none, of any process; added to.
        proc: Where /proc is.
    """
    maps = MappingRecorder(proc)
    files = (mapping for mapping in maps.read_maps(pid) if mapping.path.startswith("/"))
    for mapping in islice(files, _MAX_FILES):
        # The inode may be another file's, once this one is removed.
        key = f"{mapping.file} {mapping.path}"
        elf = None if key in seen else maps.open_elf(pid, mapping)
        if elf is None:
            continue
        relocations = elf.relocations(SYMBOL)
        if not relocations and len(seen) < _MAX_SEEN:
            seen.add(key)
        # Which is of this mapping, not of its file.
        bias = elf.bias(mapping.start, mapping.offset)
        if bias is None:
            continue
        # Until the loader has filled them in there is nothing in their places.
        for relocation in relocations:
            try:
                found = _resolve(memory, relocation.type, bias + relocation.address)
            except Unreadable:
                continue
            if found:
                return found
    return None


def _resolve(memory: Memory, kind: int, slot: int) -> ThreadRecord | None:
    """What the loader wrote for a relocation; None if it has not yet."""
    if kind == _TPOFF64:
        offset = memory.i64(slot)
        return ThreadRecord(0, offset) if _STATIC_MIN < offset < 0 else None
    if kind == _DTPMOD64:
        module, offset = memory.u64(slot), memory.u64(slot + 8)
    elif kind == _TLSDESC:
        argument = memory.i64(slot + 8)
        if _STATIC_MIN < argument < 0:
            return ThreadRecord(0, argument)
        module, offset = memory.u64(argument), memory.u64(argument + 8)
    else:
        return None
    return ThreadRecord(module, offset) if 0 < module < _MAX_MODULES else None
