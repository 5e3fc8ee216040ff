"""Functions and lines of a Go executable, from the table the runtime itself unwinds with.

It is there in stripped executables too. Layout: internal/abi/symtab.go and runtime/symtab.go in
Go's source; the header has had these fields since 1.18.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sltrace.symbols.elf import ElfError
from sltrace.symbols.filebytes import MAX_SEARCHED
from sltrace.target.go.image import Image

_MAGICS = (0xFFFFFFF0, 0xFFFFFFF1)
_HEADER = struct.Struct("<IHBB8Q")
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MODULE_SECTIONS = (".go.module", ".noptrdata", ".data", ".data.rel.ro")
_MIN_PC, _MAX_PC, _TEXT, _END_TEXT = 20, 21, 22, 23
"""Words of runtime.moduledata."""
_FUNCTION = struct.Struct("<IiiIIIIII")
_FUNCTION_BYTES = 44
_TABLES, _DATA = 28, 43
"""Where in a function's record is how many tables by address and data follow it, 4 bytes each."""
_MAX_TABLES = 64
_MAX_BYTES = 512 << 20
_MAX_FUNCTIONS = 1 << 22
_MAX_RECORDS = 128 << 20
"""Bytes of what is told of all functions; twice that is held while it is read."""
_MAX_NAME = 4096
_MAX_STEPS = 1 << 16
"""Of a line table: the largest function of a large service has some thousands."""
_MAX_VARINT_BITS = 35
_BLOCK = 256
_MAX_KEPT = 1 << 13
"""Names and places of a program that are not looked up again: a service's stacks have as many."""
_MAX_HITS = 64
"""Of what a module begins with: a file may be full of it."""


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Location:
    """What an address belongs to; line 0 and an empty file where the table does not say."""

    function: str
    file: str
    line: int


class Pclntab:
    """The table of one executable. Addresses are linked ones.

    Raises:
        ElfError: There is none, or it is damaged.
    """

    def __init__(self, image: Image) -> None:
        section = next((image.sections[n] for n in _SECTIONS if n in image.sections), None)
        if section is None:
            raise ElfError("no table of functions (.gopclntab)")
        if section.size > _MAX_BYTES:
            raise ElfError("its table of functions is too large")
        # It is read where it is asked: it is a third of the file, and held for each program.
        self._file = image.data
        self._begin, self._size = section.offset, section.size
        self._texts: dict[int, str] = {}
        self._located: dict[int, Location] = {}
        try:
            self._read_functions(image, section.address)
        except (struct.error, ValueError, IndexError, OverflowError) as err:
            raise ElfError(f"its table of functions is damaged: {err}") from err

    def _read_functions(self, image: Image, address: int) -> None:
        header = _HEADER.unpack(self._read(0, _HEADER.size))
        magic, _pad, quantum, pointer, count, _files, _text, *offsets = header
        if magic not in _MAGICS or quantum != 1 or pointer != 8:
            raise ElfError(f"its table of functions is of an unknown kind ({magic:#x})")
        self._names, self._units, self._files, self._pc, self._functions = offsets
        if not 0 < count <= _MAX_FUNCTIONS:
            raise ElfError("its table of functions has no functions")
        self.module, self.text, self.end = _module(image, address)
        words = self._read(self._functions, 4 * (2 * count + 1))
        table = np.frombuffer(words, "<u4", 2 * count + 1).astype(np.int64)
        starts = table[0::2] + self.text
        if (np.diff(starts) < 0).any() or starts[0] != self.text or starts[-1] > self.end:
            raise ElfError("its functions are not in order")
        self._starts = starts
        at = table[1::2]
        end = int(at.max()) + _FUNCTION_BYTES
        if end > _MAX_RECORDS:
            raise ElfError("its table of functions is too large")
        functions = self._read(self._functions, end)
        if end > len(functions):
            raise ElfError("its functions lie outside of the table")
        self._at = self._functions + at
        self._name_offsets = _words(functions, at + 4)

    def _read(self, at: int, size: int) -> bytes:
        """Bytes from an offset in the table on: fewer at its end, none outside of it."""
        if not 0 <= at < self._size:
            return b""
        at, end = self._begin + at, self._begin + min(at + size, self._size)
        return bytes(self._file[at:end])

    def __len__(self) -> int:
        return len(self._at)

    def function(self, name: str) -> tuple[int, int] | None:
        """Start and end of a function; of the largest where there are wrappers of that name."""
        named = self.name_offset(name)
        found = np.flatnonzero(self._name_offsets == (-1 if named is None else named))
        if not len(found):
            return None
        sizes = self._starts[found + 1] - self._starts[found]
        return self.bounds(int(found[np.argmax(sizes)]))

    def bounds(self, index: int) -> tuple[int, int]:
        """Start and end of a function by its number."""
        return int(self._starts[index]), int(self._starts[index + 1])

    def name_offset(self, name: str) -> int | None:
        """Where among all names one is, also of what has no code of its own; None if nowhere."""
        wanted = b"\0" + name.encode() + b"\0"
        end = self._units if self._units > self._names else self._size
        start = self._begin + max(self._names - 1, 0)
        at = self._file.find(wanted, start, self._begin + min(end, self._size))
        return None if at < 0 else at + 1 - self._begin - self._names

    def name_at(self, offset: int) -> str:
        """The name that is there among all names; empty where none begins."""
        if offset < 0 or (offset and self._read(self._names + offset - 1, 1) != b"\0"):
            return ""
        return self._text(self._names + offset)

    def index_of(self, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the function that covers each address; -1 where none does."""
        index = np.searchsorted(self._starts, addresses, side="right") - 1
        inside = (addresses >= self._starts[0]) & (addresses < self._starts[-1])
        return np.where(inside, np.minimum(index, len(self) - 1), -1)

    def is_start(self, addresses: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each address is the first of a function."""
        index = np.searchsorted(self._starts, addresses)
        same: NDArray[np.bool_] = self._starts[np.minimum(index, len(self))] == addresses
        return same

    def name(self, index: int) -> str:
        """Name of a function by its number."""
        return self._text(self._names + int(self._name_offsets[index]))

    def data(self, number: int) -> NDArray[np.int64]:
        """Offset of one of the data of each function (FUNCDATA); -1 where it has none."""
        begin = self._functions
        size = int(self._at.max()) + _FUNCTION_BYTES + 4 * (_MAX_TABLES + number + 1) - begin
        functions = self._read(begin, size)
        functions += bytes(size - len(functions))
        at = self._at - begin
        tables = _words(functions, at + _TABLES)
        there = np.frombuffer(functions, np.uint8)[at + _DATA] > number
        there &= (tables >= 0) & (tables <= _MAX_TABLES)
        at = np.where(there, at + _FUNCTION_BYTES + 4 * (tables + number), 0)
        return np.where(there, _words(functions, at), -1)

    def steps(self, index: int, number: int) -> Iterator[tuple[int, int]]:
        """Values of one of the tables of a function (PCDATA), each with the address of its end."""
        word = self._read(int(self._at[index]) + _TABLES, 4)
        if number < int.from_bytes(word, "little"):
            offset = self._read(int(self._at[index]) + _FUNCTION_BYTES + 4 * number, 4)
            yield from self._steps(int.from_bytes(offset, "little"), self.bounds(index)[0])

    def locate(self, address: int, *, placed: bool = True) -> Location | None:
        """Function, file and line of an address; None outside of the functions.

        Args:
            address: Which.
            placed: Whether file and line are wanted: 0.1 ms, tens of ms where a table is damaged.

        A function that was inlined is not told apart: the function is the one it was inlined
        into, file and line are those of the inlined code.
        """
        # Processes of a program are many, and their stacks alike.
        if (known := self._located.get(address)) is not None:
            return known
        index = int(self.index_of(np.array([address]))[0])
        if index < 0:
            return None
        if not placed:
            return Location(self.name(index), "", 0)
        fields = self._read(int(self._at[index]), _FUNCTION.size)
        if len(fields) < _FUNCTION.size:
            return None
        _, _, _, _, _, files, lines, _, unit = _FUNCTION.unpack(fields)
        start = int(self._starts[index])
        line = self._value(lines, start, address)
        file = self._value(files, start, address)
        where = Location(self.name(index), self._path(unit, file), max(line, 0))
        return _kept(self._located, address, where)

    def _path(self, unit: int, number: int) -> str:
        word = self._read(self._units + 4 * (unit + number), 4) if number >= 0 else b""
        offset = int.from_bytes(word, "little")
        return "" if len(word) < 4 or offset == 0xFFFFFFFF else self._text(self._files + offset)

    def _value(self, offset: int, start: int, address: int) -> int:
        """Value at an address in a table of differences of value and address."""
        return next((value for value, end in self._steps(offset, start) if address < end), -1)

    def _steps(self, offset: int, start: int) -> Iterator[tuple[int, int]]:
        if not offset:
            return
        value, pc = -1, start
        numbers = self._varints(self._pc + offset)
        for step, (change, length) in enumerate(zip(numbers, numbers, strict=False)):
            if (change == 0 and step) or step >= _MAX_STEPS:
                return
            value += -(change >> 1) - 1 if change & 1 else change >> 1
            pc += length
            yield value, pc

    def _varints(self, at: int) -> Iterator[int]:
        """Numbers from an offset on, to the end of the table or one of more than 5 bytes."""
        value = shift = 0
        while block := self._read(at, _BLOCK):
            at += len(block)
            for byte in block:
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    yield value
                    value = shift = 0
                elif shift >= _MAX_VARINT_BITS:
                    return

    def _text(self, at: int) -> str:
        if (known := self._texts.get(at)) is not None:
            return known
        text, zero, _ = self._read(at, _MAX_NAME).partition(b"\0")
        return _kept(self._texts, at, text.decode(errors="replace") if zero else "")


def _words(data: bytes, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """The signed numbers of 4 bytes at these offsets."""
    found = np.frombuffer(data, np.uint8)[at[:, None] + np.arange(4)]
    return np.ascontiguousarray(found).view("<i4").ravel().astype(np.int64)


def _kept(known: dict[int, _T], key: int, value: _T) -> _T:
    """The value, which is kept: within the table, so that it goes with that."""
    if len(known) >= _MAX_KEPT:
        known.clear()
    known[key] = value
    return value


def _module(image: Image, table: int) -> tuple[int, int, int]:
    """Addresses of runtime.firstmoduledata, and of the start and end of the functions."""
    pattern = struct.pack("<Q", table)
    for name in _MODULE_SECTIONS:
        section = image.sections.get(name)
        if section is None:
            continue
        end = section.offset + min(section.size, MAX_SEARCHED)
        at = (
            section.offset
            if name == ".go.module"
            else image.data.find(pattern, section.offset, end)
        )
        for _ in range(_MAX_HITS):
            if at < 0:
                break
            words = image.data[at : at + 8 * (_END_TEXT + 1)]
            if (at - section.offset) % 8 == 0 and len(words) == 8 * (_END_TEXT + 1):
                fields = struct.unpack(f"<{_END_TEXT + 1}Q", words)
                text, limit = fields[_TEXT], fields[_END_TEXT]
                if fields[_MIN_PC] == text and text < fields[_MAX_PC] <= limit:
                    return section.address + at - section.offset, text, limit
            at = image.data.find(pattern, at + 1, end)
    raise ElfError("no description of its module (runtime.moduledata)")
