"""Functions and lines of a Go executable, from the table the runtime itself unwinds with.

It is there in stripped executables too. Layout: internal/abi/symtab.go and runtime/symtab.go in
Go's source; the header has had these fields since 1.18.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sltrace.symbols.elf import ElfError
from sltrace.target.go.image import Image

_MAGICS = (0xFFFFFFF0, 0xFFFFFFF1)
_HEADER = struct.Struct("<IHBB8Q")
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MODULE_SECTIONS = (".go.module", ".noptrdata", ".data", ".data.rel.ro")
_MIN_PC, _MAX_PC, _TEXT, _END_TEXT = 20, 21, 22, 23
"""Words of runtime.moduledata."""
_MAX_FUNCTIONS = 1 << 22
_MAX_NAME = 4096
_MAX_STEPS = 1 << 16
"""Of a line table: the largest function of a large service has some thousands."""


@dataclass(frozen=True)
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
        self._data = np.frombuffer(
            bytes(image.data[section.offset : section.offset + section.size]), np.uint8
        )
        try:
            self._read(image, section.address)
        except (struct.error, ValueError, IndexError, OverflowError) as err:
            raise ElfError(f"its table of functions is damaged: {err}") from err

    def _read(self, image: Image, address: int) -> None:
        raw = self._data.tobytes()
        self._raw = raw
        magic, _pad, quantum, pointer, count, _files, _text, *offsets = _HEADER.unpack_from(raw)
        if magic not in _MAGICS or quantum != 1 or pointer != 8:
            raise ElfError(f"its table of functions is of an unknown kind ({magic:#x})")
        self._names, self._units, self._files, self._pc, self._functions = offsets
        if not 0 < count <= _MAX_FUNCTIONS:
            raise ElfError("its table of functions has no functions")
        self.module, self.text, self.end = _module(image, address)
        table = np.frombuffer(raw, "<u4", 2 * count + 1, self._functions).astype(np.int64)
        starts = table[0::2] + self.text
        if (np.diff(starts) < 0).any() or starts[0] != self.text or starts[-1] > self.end:
            raise ElfError("its functions are not in order")
        self._starts = starts
        self._at = self._functions + table[1::2]
        if (self._at + 44 > len(raw)).any():
            raise ElfError("its functions lie outside of the table")
        words = self._data[(self._at + 4)[:, None] + np.arange(4)]
        self._name_offsets = np.ascontiguousarray(words).view("<i4").ravel().astype(np.int64)

    def __len__(self) -> int:
        return len(self._at)

    def function(self, name: str) -> tuple[int, int] | None:
        """Start and end of a function; of the largest where there are wrappers of that name."""
        wanted = b"\0" + name.encode() + b"\0"
        end = self._units if self._units > self._names else len(self._raw)
        at = self._raw.find(wanted, max(self._names - 1, 0), end)
        if at < 0:
            return None
        found = np.flatnonzero(self._name_offsets == at + 1 - self._names)
        if not len(found):
            return None
        sizes = self._starts[found + 1] - self._starts[found]
        best = int(found[np.argmax(sizes)])
        return int(self._starts[best]), int(self._starts[best + 1])

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
        at = self._names + int(self._name_offsets[index])
        if not 0 <= at < len(self._raw):
            return ""
        return self._text(at)

    def locate(self, address: int) -> Location | None:
        """Function, file and line of an address; None outside of the functions.

        A function that was inlined is not told apart: the function is the one it was inlined
        into, file and line are those of the inlined code.
        """
        index = int(self.index_of(np.array([address]))[0])
        if index < 0:
            return None
        at = int(self._at[index])
        _, _, _, _, _, files, lines, _, unit = struct.unpack_from("<IiiIIIIII", self._raw, at)
        start = int(self._starts[index])
        line = self._value(lines, start, address)
        file = self._value(files, start, address)
        return Location(self.name(index), self._file(unit, file), max(line, 0))

    def _file(self, unit: int, number: int) -> str:
        at = self._units + 4 * (unit + number)
        if number < 0 or at + 4 > len(self._raw):
            return ""
        (offset,) = struct.unpack_from("<I", self._raw, at)
        return "" if offset == 0xFFFFFFFF else self._text(self._files + offset)

    def _value(self, offset: int, start: int, address: int) -> int:
        """Value at an address in a table of differences of value and address."""
        if not offset:
            return -1
        at, value, pc = self._pc + offset, -1, start
        for step in range(_MAX_STEPS):
            change, at = self._varint(at)
            if at < 0 or (change == 0 and step):
                return -1
            value += -(change >> 1) - 1 if change & 1 else change >> 1
            length, at = self._varint(at)
            if at < 0:
                return -1
            pc += length
            if address < pc:
                return value
        return -1

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 35, 7):
            if not 0 <= at < len(self._raw):
                return 0, -1
            byte = self._raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        return 0, -1

    @lru_cache(maxsize=4096)  # noqa: B019  (a table lives as long as the recording)
    def _text(self, at: int) -> str:
        end = self._raw.find(b"\0", at, at + _MAX_NAME)
        return self._raw[at : end if end >= 0 else at].decode(errors="replace")


def _module(image: Image, table: int) -> tuple[int, int, int]:
    """Addresses of runtime.firstmoduledata, and of the start and end of the functions."""
    pattern = struct.pack("<Q", table)
    for name in _MODULE_SECTIONS:
        section = image.sections.get(name)
        if section is None:
            continue
        end = section.offset + section.size
        at = (
            section.offset
            if name == ".go.module"
            else image.data.find(pattern, section.offset, end)
        )
        while at >= 0:
            words = image.data[at : at + 8 * (_END_TEXT + 1)]
            if (at - section.offset) % 8 == 0 and len(words) == 8 * (_END_TEXT + 1):
                fields = struct.unpack(f"<{_END_TEXT + 1}Q", words)
                text, limit = fields[_TEXT], fields[_END_TEXT]
                if fields[_MIN_PC] == text and text < fields[_MAX_PC] <= limit:
                    return section.address + at - section.offset, text, limit
            at = image.data.find(pattern, at + 1, end)
    raise ElfError("no description of its module (runtime.moduledata)")
