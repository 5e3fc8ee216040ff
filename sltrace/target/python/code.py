"""Names, files and lines of code objects."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from sltrace.target.memory import Memory, Unreadable
from sltrace.target.python.layout import CODE_BYTES, Layout
from sltrace.target.python.objects import Objects

Lines = tuple["array[int]", "array[int]"]
"""Where each stretch of the code ends, and its line; NO_LINE where it has none."""
NO_LINE = -(1 << 31)
Signature = tuple[int, int, int, int, int]
"""Addresses of name, file and line table, the first line, and from 3.12 on a number of its own."""

MAX_TABLE = 1 << 16
"""Of the largest functions it has some thousands of bytes; going through it takes 0.3 us a byte."""
_COROUTINE = 0x80  # CO_COROUTINE
_VERSION = 92
"""PyCodeObject.co_version, from 3.12 on (Include/cpython/code.h)."""
_pointer = struct.Struct("<Q").unpack_from
_number = struct.Struct("<i").unpack_from


@dataclass(frozen=True)
class Code:
    """What frames need of a code object.

    Attributes:
        name: Qualified where the version has it.
        file: As compiled; may be relative.
        first_line: Line of the `def`.
        table: Line table, in the format of the version.
        start: Address of the first instruction; 0 for 3.10.
        coroutine: It is that of an `async def`.
    """

    name: str
    file: str
    first_line: int
    table: bytes
    start: int
    coroutine: bool

    def line(self, instruction: int) -> int | None:
        """Line of an instruction as a frame holds it; None where it has none.

        A frame that has not run an instruction yet stands before the first: the first line.
        """
        offset = (instruction - self.start) // 2 if self.start else instruction * 2
        if offset < 0:
            return self.first_line
        ends, lines = self._lines
        at = bisect_right(ends, offset)
        return lines[at] if at < len(lines) and lines[at] != NO_LINE else None

    @property
    def size(self) -> int:
        """Bytes that it takes, about; its lines eight times its table, at most."""
        return 512 + len(self.name) + len(self.file) + 9 * len(self.table)

    @property
    def module(self) -> str:
        """The file without its folders."""
        return self.file.rpartition("/")[2]

    @cached_property
    def _lines(self) -> Lines:
        lines_of = lines_3_11 if self.start else lines_3_10
        return lines_of(self.table, self.first_line)


def code_signature(memory: Memory, layout: Layout, address: int, code_type: int = 0) -> Signature:
    """What tells a code object from another that was at the same address before.

    Args:
        memory: Of the process.
        layout: Of its CPython.
        address: Of the object.
        code_type: Address of the type `code`, if known: anything else is refused.

    Raises:
        Unreadable: It is no code object, or it is gone.
    """
    raw = memory.read(address, CODE_BYTES)
    if code_type and _pointer(raw, 8)[0] != code_type:
        raise Unreadable(f"no code object at {address:#x}")
    return (
        _pointer(raw, layout.name)[0],
        _pointer(raw, layout.filename)[0],
        _pointer(raw, layout.linetable)[0],
        _number(raw, layout.first_line)[0],
        _number(raw, _VERSION)[0] if layout.minor >= 12 else 0,
    )


def read_code(memory: Memory, layout: Layout, address: int, max_table: int = MAX_TABLE) -> Code:
    """Reads a code object; without its lines if their table is longer than `max_table` bytes.

    Raises:
        Unreadable: It is no code object, or it is gone.
    """
    objects = Objects(memory, layout)
    name, file, table, first_line, _ = code_signature(memory, layout, address)
    return Code(
        name=objects.text(name),
        file=objects.text(file),
        first_line=first_line,
        table=objects.bytes(table, max_table),
        start=address + layout.code_start if layout.code_start else 0,
        coroutine=bool(memory.u32(address + layout.flags) & _COROUTINE),
    )


def lines_3_10(table: bytes, first_line: int) -> Lines:
    """Lines by byte offset: pairs of length and signed line step (Objects/lnotab_notes.txt)."""
    ends, lines = array("i"), array("i")
    line, end = first_line, 0
    for i in range(0, len(table) - 1, 2):
        end += table[i]
        step = table[i + 1] - 256 if table[i + 1] > 127 else table[i + 1]
        if step != -128:
            line += step
        ends.append(end)
        lines.append(NO_LINE if step == -128 else _within_reason(line))
    return ends, lines


def lines_3_11(table: bytes, first_line: int) -> Lines:
    """Lines by code unit: entries of variable length (Objects/locations.md)."""
    ends, lines = array("i"), array("i")
    at, line, end = 0, first_line, 0
    while at < len(table):
        first = table[at]
        code, length = first >> 3 & 15, (first & 7) + 1
        at += 1
        if code < 10:
            at += 1
        elif code < 13:
            line += code - 10
            at += 2
        elif code < 15:
            step, at = _varint(table, at)
            line += -(step >> 1) if step & 1 else step >> 1
            for _ in range(3 if code == 14 else 0):
                _, at = _varint(table, at)
        end += length
        ends.append(end)
        lines.append(NO_LINE if code == 15 else _within_reason(line))
    return ends, lines


def _within_reason(line: int) -> int:
    """The steps of a damaged table add up to anything."""
    return line if -(1 << 31) < line < 1 << 31 else NO_LINE


def _varint(table: bytes, at: int) -> tuple[int, int]:
    """A number of 6 bits a byte, low ones first; a table that ends within it ends the number."""
    value = shift = 0
    while at < len(table) and shift < 60:
        byte = table[at]
        at += 1
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return value, at
