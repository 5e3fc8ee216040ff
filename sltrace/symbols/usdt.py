"""Places in a file that its authors marked for tracers (`.note.stapsdt`)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sltrace.symbols.elf import Elf

_OWNER = b"stapsdt"
_PLACE = struct.Struct("<QQQ")
_MAX_MARKERS = 4096


@dataclass(frozen=True)
class Marker:
    """Where to probe; offsets in the file.

    Attributes:
        offset: Of the instruction.
        semaphore: Of the count of tracers, which the code looks at; 0 if there is none.
    """

    offset: int
    semaphore: int


def markers(elf: Elf, provider: str, name: str) -> list[Marker]:
    """The places with a name: one event may be marked at several."""
    wanted = provider.encode() + b"\0" + name.encode()
    found = []
    for note in elf.notes(_OWNER, _MAX_MARKERS):
        names = note[_PLACE.size :].split(b"\0", 2)
        if len(names) < 3 or b"\0".join(names[:2]) != wanted:
            continue
        address, _, semaphore = _PLACE.unpack_from(note)
        offset = elf.offset_of(address)
        counted = elf.offset_of(semaphore) if semaphore else 0
        if offset is not None and counted is not None:
            found.append(Marker(offset, counted))
    return found
