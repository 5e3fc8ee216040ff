"""Who calls whom in a BPF object, and how much of the stack each function takes.

Kernels up to 6.12 refuse a program whose chain of calls takes more than 512 bytes of stack; newer
ones, which the tests run on, give each program a stack of its own and do not mind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_INSTRUCTION = struct.Struct("<BBhi")
_SYMBOLS, _RELOCATIONS = 2, 9
_OF_SECTION, _FUNCTION = 3, 2
_LOAD, _STORE_IMMEDIATE, _STORE = 1, 2, 3
_MOVE, _ADD, _CALL, _ADDRESS = 0xBF, 0x07, 0x85, 0x18
_FRAME = 10
_TO_FUNCTION = 1
_UNDEFINED = 0

Place = tuple[int, int]
"""Section and offset."""


@dataclass
class Function:
    """A function of an object: its frame in bytes, and what it calls or hands to a helper."""

    name: str
    frame: int = 0
    calls: set[Place] = field(default_factory=set)


def functions(path: Path) -> dict[Place, Function]:
    """All functions of a BPF object."""
    data = path.read_bytes()
    (sections_at,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [_SECTION.unpack_from(data, sections_at + i * size) for i in range(count)]
    table = next(s for s in sections if s[1] == _SYMBOLS)
    names_at = sections[table[6]][4]
    symbols = list(_SYMBOL.iter_unpack(data[table[4] : table[4] + table[5]]))
    moved: dict[Place, tuple[int, ...]] = {}
    for header in sections:
        if header[1] == _RELOCATIONS:
            rows = _RELOCATION.iter_unpack(data[header[4] : header[4] + header[5]])
            moved |= {(header[7], at): symbols[info >> 32] for at, info in rows}
    found: dict[Place, Function] = {}
    lengths: dict[Place, int] = {}
    for name, info, _, section, value, length in symbols:
        if info & 15 == _FUNCTION:
            end = data.index(b"\0", names_at + name)
            found[section, value] = Function(data[names_at + name : end].decode())
            lengths[section, value] = length
    for (section, start), function in found.items():
        pointers: set[int] = set()
        for at in range(start, start + lengths[section, start], _INSTRUCTION.size):
            code, registers, offset, value = _INSTRUCTION.unpack_from(
                data, sections[section][4] + at
            )
            into, of = registers & 15, registers >> 4
            kind, symbol = code & 7, moved.get((section, at))
            if (kind == _LOAD and of == _FRAME) or (
                kind in (_STORE_IMMEDIATE, _STORE) and into == _FRAME
            ):
                function.frame = max(function.frame, -offset)
            elif code == _MOVE and of == _FRAME:
                pointers.add(into)
            elif code == _ADD and into in pointers:
                function.frame = max(function.frame, -value)
                pointers.discard(into)
            elif code == _CALL and of == _TO_FUNCTION and not _of_kernel(symbol):
                function.calls.add(_callee(section, at, value, symbol))
            elif code == _ADDRESS and symbol and (symbol[3], symbol[4] + value) in found:
                function.calls.add((symbol[3], symbol[4] + value))
    return found


def _of_kernel(symbol: tuple[int, ...] | None) -> bool:
    """Whether a function is none of the object's own: the kernel's take no stack of a program."""
    return symbol is not None and symbol[3] == _UNDEFINED


def _callee(section: int, at: int, value: int, symbol: tuple[int, ...] | None) -> Place:
    following = (value + 1) * _INSTRUCTION.size
    if symbol is None:
        return section, at + following
    return symbol[3], symbol[4] + (following if symbol[1] & 15 == _OF_SECTION else 0)


def chains(
    found: dict[Place, Function], at: Place, before: tuple[Function, ...] = ()
) -> Iterator[tuple[Function, ...]]:
    """Every chain of calls that begins with a function, to its innermost one."""
    chain = (*before, found[at])
    if not found[at].calls:
        yield chain
    for callee in found[at].calls:
        yield from chains(found, callee, chain)
