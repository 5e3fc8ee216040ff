"""An executable by linked address: sections and what lies in them.

The file belongs to whoever is recorded. Every offset is checked against the file; what does not
fit makes an ElfError, nothing else.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from sltrace.symbols.elf import PT_LOAD, SECTION, SEGMENT, ElfError, Header, Segment, read_header
from sltrace.symbols.filebytes import Data, FileBytes, unpack

_SHT_NOBITS, _ET_DYN, _EM_X86_64 = 8, 3, 62
_COMPRESSED = 0x800  # SHF_COMPRESSED
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
        header = read_header(self.data)
        if header.machine != _EM_X86_64:
            raise ElfError("not x86-64 code")
        self.pie = header.type == _ET_DYN
        self.segments = tuple(
            Segment(offset, address, size)
            for kind, _, offset, address, _, size, _, _ in (
                unpack(SEGMENT, self.data, header.segments_at + i * SEGMENT.size)
                for i in range(header.segments)
            )
            if kind == PT_LOAD
        )
        if not self.segments:
            raise ElfError("nothing of it is loaded")
        self.sections = self._sections(header)

    def _sections(self, header: Header) -> dict[str, Section]:
        if not header.sections_at or header.names >= header.sections:
            return {}
        raw = [
            unpack(SECTION, self.data, header.sections_at + i * SECTION.size)
            for i in range(header.sections)
        ]
        names_at = raw[header.names][4]
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
