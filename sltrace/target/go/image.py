"""An executable by linked address: sections and what lies in them.

The file belongs to whoever is recorded. Every offset is checked against the file; what does not
fit makes an ElfError, nothing else.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from sltrace.symbols.elf import ElfError, Segment
from sltrace.symbols.filebytes import Data, FileBytes, unpack

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PT_LOAD, _SHT_NOBITS, _ET_DYN, _EM_X86_64 = 1, 8, 3, 62
_COMPRESSED = 0x800  # SHF_COMPRESSED
_MAX_TABLE = 4096
_MAX_NAME = 64


@dataclass(frozen=True)
class Section:
    """Linked address, offset in the file and length of a section, and whether it is compressed."""

    address: int
    offset: int
    size: int
    compressed: bool = False


class Image:
    """A 64-bit x86 ELF executable.

    Args:
        data: The file's bytes.

    Raises:
        ElfError: It is not one, or is damaged.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        try:
            self._read()
        except (struct.error, ValueError, IndexError, OverflowError) as err:
            raise ElfError(str(err)) from err

    @classmethod
    def from_file(cls, path: Path) -> Image:
        """Reads a file.

        Raises:
            ElfError: As above.
            OSError: It cannot be read.
        """
        with path.open("rb") as file:
            return cls(FileBytes(file))

    def _read(self) -> None:
        fields = unpack(_HEADER, self.data, 0)
        if fields[0][:6] != b"\x7fELF\x02\x01":
            raise ElfError("not a 64-bit little-endian ELF file")
        if fields[2] != _EM_X86_64:
            raise ElfError("not x86-64 code")
        self.pie = fields[1] == _ET_DYN
        segments_at, sections_at = fields[5], fields[6]
        self.segments = tuple(
            Segment(offset, address, size)
            for kind, _, offset, address, _, size, _, _ in (
                unpack(_SEGMENT, self.data, segments_at + i * _SEGMENT.size)
                for i in range(min(fields[10], _MAX_TABLE))
            )
            if kind == _PT_LOAD
        )
        if not self.segments:
            raise ElfError("nothing of it is loaded")
        self.sections = self._sections(sections_at, min(fields[12], _MAX_TABLE), fields[13])

    def _sections(self, at: int, count: int, names_index: int) -> dict[str, Section]:
        if not at or not count or names_index >= count:
            return {}
        raw = [unpack(_SECTION, self.data, at + i * _SECTION.size) for i in range(count)]
        names_at = raw[names_index][4]
        found: dict[str, Section] = {}
        for name, kind, flags, address, offset, size, *_ in raw:
            text = bytes(self.data[names_at + name : names_at + name + _MAX_NAME])
            inside = kind != _SHT_NOBITS and offset + size <= len(self.data)
            if inside:
                label = text.partition(b"\0")[0].decode(errors="replace")
                found.setdefault(label, Section(address, offset, size, bool(flags & _COMPRESSED)))
        return found

    @property
    def base(self) -> int:
        """Page at which the first segment is linked."""
        return min(s.address for s in self.segments) & ~(mmap.PAGESIZE - 1)

    def offset_of(self, address: int) -> int | None:
        """Offset in the file of a linked address; None outside of it."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        return None

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a linked address, as they are in the file.

        Raises:
            ElfError: Not all of them are in one segment.
        """
        for segment in self.segments:
            if segment.address <= address and address + size <= segment.address + segment.size:
                start = segment.offset + address - segment.address
                found = bytes(self.data[start : start + size])
                if len(found) == size:
                    return found
        raise ElfError(f"{size} bytes at {address:#x} are not in the file")
