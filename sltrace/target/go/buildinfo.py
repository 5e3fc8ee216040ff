"""Go version of an executable, and how it was built: its build info (debug/buildinfo in Go)."""

from __future__ import annotations

from dataclasses import dataclass

from sltrace.target.go.errors import NotGoError
from sltrace.target.go.image import Image

MAGIC = b"\xff Go buildinf:"
_INLINE = 2
_HEADER = 32
_MAX_STRING = 1 << 20
_MAX_BYTES = 4 << 20
"""Of its section, whose size is as its file says: holes of a file are as large as one likes."""
_MAX_VARINT = 5
_MODE = "build\t-buildmode="


@dataclass(frozen=True)
class BuildInfo:
    """What the linker wrote.

    Attributes:
        version: As `go1.26.6`; may carry more, as experiments.
        mode: As `plugin` (go help buildmode); empty where it does not tell.
    """

    version: str
    mode: str = ""


def read_buildinfo(image: Image) -> BuildInfo:
    """Reads it.

    Raises:
        NotGoError: There is none.
    """
    section = image.sections.get(".go.buildinfo")
    if section is None:
        raise NotGoError("no Go build info")
    size = min(section.size, _MAX_BYTES)
    return parse(bytes(image.data[section.offset : section.offset + size]))


def parse(blob: bytes) -> BuildInfo:
    """What the linker wrote, and maybe more behind it.

    Raises:
        NotGoError: It is none.
    """
    if not blob.startswith(MAGIC) or len(blob) < _HEADER:
        raise NotGoError("no Go build info")
    if not blob[15] & _INLINE:
        # Pointers to strings, then.
        return BuildInfo("go1.17 or older")
    version, position = _string(blob, _HEADER)
    raw, _ = _string(blob, position)
    # Between two markers of 16 bytes.
    lines = raw[16:-16].decode(errors="replace").splitlines()
    return BuildInfo(version.decode(errors="replace")[:100], _mode(lines))


def _string(blob: bytes, position: int) -> tuple[bytes, int]:
    length = 0
    for i in range(_MAX_VARINT):
        if position >= len(blob):
            return b"", position
        byte = blob[position]
        position += 1
        length |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            break
    length = min(length, _MAX_STRING)
    return blob[position : position + length], position + length


def _mode(lines: list[str]) -> str:
    settings = (line.removeprefix(_MODE) for line in lines if line.startswith(_MODE))
    return next(settings, "")
