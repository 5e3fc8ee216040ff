"""Types that CPython does not export, found in its file and its memory by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sltrace.symbols.elf import Segment
from sltrace.symbols.filebytes import Data
from sltrace.symbols.mappings import MappingRecorder
from sltrace.target.memory import MAX_READ, Memory, Unreadable
from sltrace.target.python.interpreter import Interpreter
from sltrace.target.python.objects import Objects

_TP_NAME = 24
"""Of a type: the first member after the object's head."""
_MAX_HITS = 64
_MAX_SEARCHED = 256 << 20
"""Of a file: that of an interpreter is some 10 MB."""
_ADDRESSES = 1 << 64


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
            bias, objects = interpreter.bias, Objects(memory, interpreter.layout)
            places = [(s.address + bias, s.size) for s in elf.segments if s.writable]
            held = [(start, memory.read(start, min(size, MAX_READ))) for start, size in places]
            return [
                _static_type(
                    objects, name, (t + bias for t in _places(data, elf.segments, name)), held
                )
                for name in names
            ]
    raise Unreadable("the interpreter's file is gone")


def _static_type(
    objects: Objects, name: str, texts: Iterable[int], held: Sequence[tuple[int, bytes]]
) -> int:
    """Address of a type.

    Args:
        objects: Of the process.
        name: Of the type.
        texts: Where that stands in memory.
        held: What the interpreter may write to, and where that begins.
    """
    for text in texts:
        # An address of a damaged file may be anything.
        pointer = (text % _ADDRESSES).to_bytes(8, "little")
        for start, raw in held:
            at = raw.find(pointer)
            while at >= 0:
                found = start + at - _TP_NAME
                if not found % 8 and objects.type_name(found) == "type":
                    return found
                at = raw.find(pointer, at + 1)
    raise Unreadable(f"no type {name}")


def _places(data: Data, segments: Sequence[Segment], name: str) -> Iterator[int]:
    """Linked addresses at which a file has this text; at most _MAX_HITS of a segment."""
    wanted = name.encode() + b"\0"
    left = _MAX_SEARCHED
    for segment in segments:
        at, size = segment.offset - 1, min(segment.size, left)
        left -= size
        for _ in range(_MAX_HITS):
            at = data.find(wanted, at + 1, segment.offset + size)
            if at < 0:
                break
            yield segment.address + at - segment.offset
