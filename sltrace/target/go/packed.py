"""Programs whose file is packed by UPX: what they are is in their memory only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice

from sltrace.target.go.buildinfo import MAGIC, BuildInfo, parse
from sltrace.target.go.errors import NotGoError
from sltrace.target.go.image import Image
from sltrace.target.go.memory import Memory, UnreadableError

_MARK, _HEAD = b"UPX!", 4096
_MAX_BYTES = 256 << 20
_PIECE, _ALIGNED, _INFO = 1 << 20, 16, 1 << 16
_MAX_PLACES = 64
"""There is one, and maybe copies; memory may be full of what begins so."""
_VERSIONS = ("go", "devel")


class UnpackingError(NotGoError):
    """It is packed, and no Go program yet: unpacking takes some tenths of a second."""


def is_packed(image: Image) -> bool:
    """Whether a file is none of what will run."""
    return image.data.find(_MARK, 0, _HEAD) >= 0


def buildinfo_in_memory(pid: int) -> BuildInfo:
    """Of a process whose file is packed.

    Raises:
        UnpackingError: There is none.
    """
    memory = Memory(pid)
    with contextlib.suppress(OSError):
        for address, size in islice(_places(memory), _MAX_PLACES):
            with contextlib.suppress(UnreadableError, NotGoError):
                info = parse(memory.read(address, size))
                if info.version.startswith(_VERSIONS):
                    return info
    raise UnpackingError("it is packed, and no Go program")


def _places(memory: Memory) -> Iterator[tuple[int, int]]:
    """Address of each thing that begins as build info does, and how many bytes to read of it."""
    left = _MAX_BYTES
    for start, end in _mappings(memory.pid):
        for at in range(start, min(end, start + left), _PIECE):
            with contextlib.suppress(UnreadableError):
                piece = memory.read(at, min(_PIECE, end - at))
                found = piece.find(MAGIC)
                while found >= 0:
                    if not (at + found) % _ALIGNED:
                        yield at + found, min(_INFO, end - at - found)
                    found = piece.find(MAGIC, found + 1)
        left = max(left - (end - start), 0)


def _mappings(pid: int) -> Iterator[tuple[int, int]]:
    """What a process can read and has no file for."""
    with open(f"/proc/{pid}/maps", errors="replace") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if len(fields) == 5 and fields[1].startswith("r") and fields[4] == "0":
                start, _, end = fields[0].partition("-")
                yield int(start, 16), int(end, 16)
