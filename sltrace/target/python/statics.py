"""Types that CPython does not export, found in its file and its memory by their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sltrace.symbols.elf import Elf, Segment
from sltrace.symbols.filebytes import Data
from sltrace.symbols.mappings import MappingRecorder
from sltrace.target.memory import MAX_READ, Memory, Unreadable
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.objects import Objects

_TP_NAME = 24
"""Of a type: the first member after the object's head."""
_MAX_HITS = 64


def static_types(
    memory: Memory, interpreter: Interpreter, names: Sequence[str], proc: Path = Path("/proc")
) -> list[int]:
    """Addresses of types that are static objects of the interpreter, in the order of their names.

    Args:
        memory: Of the process.
        interpreter: In it.
        names: As in their `tp_name`.
        proc: Where /proc is.

    Raises:
        Unreadable: One is not there, or its file is gone.
    """
    maps = MappingRecorder(proc)
    for mapping in maps.read_maps(memory.pid):
        if f"{mapping.start:x}-{mapping.end:x}" != interpreter.mapped:
            continue
        data, elf = maps.open_file(memory.pid, mapping), maps.open_elf(memory.pid, mapping)
        if data and elf:
            return [_static_type(memory, interpreter, name, data, elf) for name in names]
    raise Unreadable("the interpreter's file is gone")


def _static_type(memory: Memory, interpreter: Interpreter, name: str, data: Data, elf: Elf) -> int:
    objects = Objects(memory, interpreter.layout)
    bias = interpreter.bias
    for text in _places(data, elf.segments, name.encode() + b"\0"):
        pointer = (text + bias).to_bytes(8, "little")
        for segment in elf.segments:
            if not segment.writable:
                continue
            start = segment.address + bias
            held = memory.read(start, min(segment.size, MAX_READ))
            at = held.find(pointer)
            while at >= 0:
                found = start + at - _TP_NAME
                if not found % 8 and objects.type_name(found) == "type":
                    return found
                at = held.find(pointer, at + 1)
    raise Unreadable(f"no type {name}")


def _places(data: Data, segments: Sequence[Segment], wanted: bytes) -> Iterator[int]:
    """Linked addresses at which a file has these bytes; at most _MAX_HITS of a segment."""
    for segment in segments:
        at = segment.offset - 1
        for _ in range(_MAX_HITS):
            at = data.find(wanted, at + 1, segment.offset + segment.size)
            if at < 0:
                break
            yield segment.address + at - segment.offset
