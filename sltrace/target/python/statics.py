"""Types that CPython does not export, found in its file and its memory by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
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
"""Of a text in a file, and of pointers to one in memory: there are one to three."""
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
            held = _read(memory, places)
            return [
                _static_type(
                    objects, name, (t + bias for t in _places(data, elf.segments, name)), held
                )
                for name in names
            ]
    raise Unreadable("the interpreter's file is gone")


def _read(memory: Memory, places: Sequence[tuple[int, int]]) -> list[tuple[int, bytes]]:
    """What is at addresses with sizes, and at which; of all of them together at most MAX_READ."""
    held, left = [], MAX_READ
    for start, size in places:
        read = memory.read(start, min(size, left))
        held.append((start, read))
        left -= len(read)
    return held


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
        for place in islice(_pointers(held, text), _MAX_HITS):
            if objects.type_name(place - _TP_NAME) == "type":
                return place - _TP_NAME
    raise Unreadable(f"no type {name}")


def _pointers(held: Sequence[tuple[int, bytes]], to: int) -> Iterator[int]:
    """Where in memory, aligned as they are, there are pointers to an address."""
    # An address of a damaged file may be anything.
    pointer = (to % _ADDRESSES).to_bytes(8, "little")
    for start, raw in held:
        at = raw.find(pointer)
        while at >= 0:
            if not (start + at) % 8:
                yield start + at
            at = raw.find(pointer, at + 1)


def _places(data: Data, segments: Sequence[Segment], name: str) -> Iterator[int]:
    """Linked addresses at which a file has this text; at most _MAX_HITS."""
    wanted = name.encode() + b"\0"
    left, hits = _MAX_SEARCHED, 0
    for segment in segments:
        at, size = segment.offset - 1, min(segment.size, left)
        left -= size
        while hits < _MAX_HITS:
            at = data.find(wanted, at + 1, segment.offset + size)
            if at < 0:
                break
            hits += 1
            yield segment.address + at - segment.offset
