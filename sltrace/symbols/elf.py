"""Function symbols, segments and build id of an ELF file.

Files come from whoever is recorded: sizes and offsets in them are checked against the file before
they are used, and whatever does not fit makes an ElfError, nothing else.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sltrace.symbols.filebytes import MAX_SEARCHED, Data, FileBytes, is_unchanged, unpack

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
"""Program and section headers, elf(5)."""
_NOTE = struct.Struct("<III")
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"),
     ("value", "<u8"), ("size", "<u8")]
)  # fmt: skip
_RELOCATION = np.dtype([("address", "<u8"), ("info", "<u8"), ("addend", "<i8")])
PT_LOAD, _PT_NOTE = 1, 4
_PF_W = 2
_SHT_SYMTAB, _SHT_RELA, _SHT_NOTE, _SHT_DYNSYM = 2, 4, 7, 11
_STT_FUNC, _STT_IFUNC = 2, 10
_NT_GNU_BUILD_ID = 3
_MAX_SYMBOLS = 1 << 22
_MAX_NAME = 4096
_MAX_NOTES = 1 << 12
_MAX_TABLE = 4096
_MAX_SYMBOL_TABLES = 4
"""Of a type: linkers make one."""
_MAX_PLACES = 64
"""Of a name within the names of all symbols."""
_MAX_RELOCATION_TABLES, _MAX_RELOCATIONS = 16, 1 << 20
"""Linkers make two; a very large library has half as many in one."""
_U64 = (1 << 64) - 1


class ElfError(Exception):
    """Not an ELF file that can be read."""


@dataclass(frozen=True)
class Symbol:
    """A symbol: the address it is linked at (its offset for thread-local ones), and its size."""

    value: int
    size: int


@dataclass(frozen=True)
class Relocation:
    """A relocation of a dynamic symbol: where the loader writes, its type and addend."""

    address: int
    type: int
    addend: int


@dataclass(frozen=True)
class Segment:
    """A part of the file that is mapped: offset and length in it, and address."""

    offset: int
    address: int
    size: int
    writable: bool = False


class Header(NamedTuple):
    """Of a file: its type and machine, and where its tables are.

    Attributes:
        type: ET_EXEC, ET_DYN ...
        machine: EM_X86_64 ...
        segments_at: Offset of the program headers.
        segments: How many are looked at.
        sections_at: Offset of the section headers; 0 if there are none.
        sections: How many are looked at.
        names: Section that has the names of sections.
    """

    type: int
    machine: int
    segments_at: int
    segments: int
    sections_at: int
    sections: int
    names: int


def read_header(data: Data) -> Header:
    """Reads the header of a 64-bit little-endian file.

    Raises:
        ElfError: It is another one, or none.
        struct.error: It is too short.
    """
    ident, kind, machine, _, _, segments_at, sections_at, *counts = unpack(_HEADER, data, 0)
    if ident[:6] != b"\x7fELF\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file")
    _, _, _, segments, _, sections, names = counts
    return Header(
        *(kind, machine, segments_at, min(segments, _MAX_TABLE)),
        *(sections_at, min(sections, _MAX_TABLE), names),
    )


class Elf:
    """A 64-bit little-endian ELF file.

    Args:
        data: The file's bytes; kept for as long as names are asked for.

    Raises:
        ElfError: It is not one, or is damaged.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        try:
            self._read()
        except (struct.error, ValueError, IndexError, OverflowError) as err:
            raise ElfError(str(err)) from err

    @classmethod
    def from_file(cls, file: IO[bytes]) -> Elf:
        """Reads an open file, which may be closed afterwards.

        Raises:
            ElfError: As above, or it cannot be read.
        """
        try:
            return cls(FileBytes(file))
        except OSError as err:
            raise ElfError(str(err)) from err

    def _read(self) -> None:
        header = read_header(self._data)
        segments_end = header.segments_at + header.segments * SEGMENT.size
        segments = list(SEGMENT.iter_unpack(self._data[header.segments_at : segments_end]))
        self.segments = tuple(
            Segment(s[2], s[3], s[5], bool(s[1] & _PF_W)) for s in segments if s[0] == PT_LOAD
        )
        self.build_id = self._build_id([(s[2], s[5]) for s in segments if s[0] == _PT_NOTE])
        # A stripped section table is no error: there are just no symbols.
        sections_end = header.sections_at + header.sections * SECTION.size
        self._sections: list[tuple[Any, ...]] = []
        if header.sections_at and sections_end <= len(self._data):
            self._sections += SECTION.iter_unpack(self._data[header.sections_at : sections_end])
        self._section_names = header.names

    def _build_id(self, notes: list[tuple[int, int]]) -> str:
        for owner, kind, value in self._notes(notes):
            if owner == b"GNU" and kind == _NT_GNU_BUILD_ID and 4 <= len(value) <= 64:
                return value.hex()
        return ""

    def is_unchanged(self) -> bool:
        """Whether names are those of what was read at first: its owner may write over the file."""
        return is_unchanged(self._data)

    def section(self, name: str, limit: int) -> bytes:
        """The first `limit` bytes of a section of the file; empty if it has none of that name."""
        if self._section_names >= len(self._sections):
            return b""
        names_at = self._sections[self._section_names][4]
        wanted = name.encode() + b"\0"
        for section in self._sections:
            at = names_at + section[0]
            if self._data[at : at + len(wanted)] == wanted:
                return bytes(self._data[section[4] : section[4] + min(section[5], limit)])
        return b""

    def notes(self, owner: bytes, limit: int) -> list[bytes]:
        """Contents of the notes of one owner in the section table, the first `limit`."""
        sections = [(s[4], s[5]) for s in self._sections if s[1] == _SHT_NOTE]
        mine = (value for name, _, value in self._notes(sections) if name == owner)
        return list(islice(mine, limit))

    def _notes(self, places: list[tuple[int, int]]) -> Iterator[tuple[bytes, int, bytes]]:
        """Owner, type and contents of the notes at offsets, each with the size of them all.

        Of at most _MAX_NOTES: a hole in a file is as many as fit, of nothing.
        """
        left = _MAX_NOTES
        for offset, size in places:
            end = min(offset + size, len(self._data))
            while offset + _NOTE.size <= end and left:
                left -= 1
                header = self._data[offset : offset + _NOTE.size]
                if len(header) < _NOTE.size:  # cut short since
                    break
                name_size, value_size, kind = _NOTE.unpack(header)
                name_at = offset + _NOTE.size
                value_at = name_at + (name_size + 3) // 4 * 4
                offset = value_at + (value_size + 3) // 4 * 4
                if offset > end:
                    break
                name = bytes(self._data[name_at : name_at + min(name_size, 64)]).rstrip(b"\0")
                yield (
                    name,
                    kind,
                    bytes(self._data[value_at : value_at + min(value_size, _MAX_NAME)]),
                )

    @cached_property
    def _functions(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """Start, end (0: unknown) and position of the name, sorted by start.

        One of size 0 (`_init`, assembly) may reach to its section's end, not into the PLT after it.
        """
        ends_of_sections = np.array([(s[3] + s[5]) & _U64 for s in self._sections], np.uint64)
        for wanted in (_SHT_SYMTAB, _SHT_DYNSYM):
            for table, strings_at, strings_size in self._symbol_tables(wanted):
                kind = table["info"] & 0xF
                table = table[
                    ((kind == _STT_FUNC) | (kind == _STT_IFUNC))
                    & (table["section"] != 0)
                    & (table["name"] < strings_size)
                ]
                if not len(table):
                    continue
                table = table[np.argsort(table["value"], kind="stable")]
                starts = table["value"].astype(np.uint64)
                within = table["section"] < len(self._sections)
                last = ends_of_sections[np.where(within, table["section"], 0)]
                unsized = np.where(within, last, np.uint64(0))
                ends = np.where(table["size"] > 0, starts + table["size"], unsized)
                return starts, ends, strings_at + table["name"].astype(np.uint64)
        empty = np.empty(0, np.uint64)
        return empty, empty, empty

    def _symbol_tables(self, wanted: int) -> Iterator[tuple[NDArray[Any], int, int]]:
        """Symbol tables of a type, each with the position and size of its strings."""
        tables = (section for section in self._sections if section[1] == wanted)
        for section in islice(tables, _MAX_SYMBOL_TABLES):
            if section[6] >= len(self._sections):
                continue
            offset, size = section[4], section[5]
            strings_at, strings_size = self._sections[section[6]][4:6]
            if offset + size > len(self._data) or strings_at + strings_size > len(self._data):
                continue
            n = min(size // _SYMBOL.itemsize, _MAX_SYMBOLS)
            yield self._array(_SYMBOL, n, offset), strings_at, min(strings_size, MAX_SEARCHED)

    def _array(self, dtype: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
        """A table in the file, or what is left of it."""
        raw = self._data[offset : offset + count * dtype.itemsize]
        return np.frombuffer(raw, dtype, len(raw) // dtype.itemsize)

    def symbol(self, name: str) -> Symbol | None:
        """A symbol of any type by its name; None if the file defines none."""
        for wanted in (_SHT_DYNSYM, _SHT_SYMTAB):
            for table, strings_at, strings_size in self._symbol_tables(wanted):
                index = self._index(table, strings_at, strings_size, name)
                if index is not None:
                    return Symbol(int(table["value"][index]), int(table["size"][index]))
        return None

    def functions(self, name: str) -> list[int]:
        """Addresses of a function that is not exported, whatever its compiler made of it.

        Link-time optimisation copies and renames: `name.lto_priv.0`, `name.constprop.1`; what it
        puts out of the way, `name.cold`, is a part of one of these.
        """
        found: set[int] = set()
        for table, strings_at, strings_size in self._symbol_tables(_SHT_SYMTAB):
            names = []
            for place in self._places(name.encode(), strings_at, strings_size):
                rest = self._string(strings_at + place).removeprefix(name)
                if not rest or (rest[0] == "." and not rest.startswith(".cold")):
                    names.append(place)
            named = table[np.isin(table["name"], names)]
            functions = named[(named["info"] & 0xF == _STT_FUNC) & (named["section"] != 0)]
            found.update(functions["value"].tolist())
        return sorted(found)

    def relocations(self, name: str) -> list[Relocation]:
        """Relocations against a dynamic symbol."""
        found: list[Relocation] = []
        for table, strings_at, strings_size in self._symbol_tables(_SHT_DYNSYM):
            index = self._index(table, strings_at, strings_size, name)
            if index is None:
                continue
            tables = (section for section in self._sections if section[1] == _SHT_RELA)
            for section in islice(tables, _MAX_RELOCATION_TABLES):
                offset, size = section[4], section[5]
                if offset + size > len(self._data):
                    continue
                n = min(size // _RELOCATION.itemsize, _MAX_RELOCATIONS)
                rows = self._array(_RELOCATION, n, offset)
                found += [
                    Relocation(int(r["address"]), int(r["info"]) & 0xFFFFFFFF, int(r["addend"]))
                    for r in rows[rows["info"] >> 32 == index][: _MAX_TABLE - len(found)]
                ]
            break
        return found

    def _index(
        self, table: NDArray[Any], strings_at: int, strings_size: int, name: str
    ) -> int | None:
        """Index of the first defined symbol of that name."""
        names = list(self._places(name.encode() + b"\0", strings_at, strings_size))
        hits = np.flatnonzero(np.isin(table["name"], names) & (table["section"] != 0))
        return int(hits[0]) if len(hits) else None

    def _places(self, wanted: bytes, strings_at: int, strings_size: int) -> Iterator[int]:
        """Where these bytes are within strings; the first _MAX_PLACES."""
        at = strings_at - 1
        for _ in range(_MAX_PLACES):
            at = self._data.find(wanted, at + 1, strings_at + strings_size)
            if at < 0:
                return
            yield at - strings_at

    def address_of(self, offset: int) -> int | None:
        """Address that a file offset is linked at; None outside of what is mapped."""
        for segment in self.segments:
            if segment.offset <= offset < segment.offset + segment.size:
                return segment.address + offset - segment.offset & _U64
        return None

    def bias(self, start: int, offset: int) -> int | None:
        """What is added to linked addresses where the page at a file offset is mapped at `start`.

        A segment need not begin where its first page does, and two can share that page: the
        mapping is of the one that begins in it.
        """
        page = mmap.PAGESIZE
        for segment in self.segments:
            if segment.offset // page * page == offset:
                return start + segment.offset - offset - segment.address
        linked = self.address_of(offset)
        return None if linked is None else start - linked

    def offset_of(self, address: int) -> int | None:
        """File offset of a linked address; None outside of what is mapped."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        return None

    def names(self, addresses: NDArray[np.uint64]) -> list[str | None]:
        """Function that covers each linked address; None where there is none."""
        starts, ends, names_at = self._functions
        at = np.searchsorted(starts, addresses, side="right").astype(np.int64) - 1
        found: list[str | None] = []
        for index, address in zip(at.tolist(), addresses.tolist(), strict=True):
            if index < 0 or (ends[index] and address >= ends[index]):
                found.append(None)
            else:
                found.append(self._string(int(names_at[index])))
        return found

    def _string(self, at: int) -> str:
        raw = bytes(self._data[at : at + _MAX_NAME])
        return raw.partition(b"\0")[0].decode(errors="replace")
