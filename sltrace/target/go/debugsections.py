"""Sections of debug information, which linkers compress: read and inflated, up to a limit."""

from __future__ import annotations

import struct
import zlib

from sltrace.target.go.errors import DwarfError
from sltrace.target.go.image import Image, Section

_MAX_SECTION = 128 << 20
_ZLIB = 1  # ELFCOMPRESS_ZLIB
_CHDR = struct.Struct("<IIQQ")


def section_of(image: Image, name: str) -> bytes | None:
    """A section's bytes, inflated; None where it is not there.

    Raises:
        DwarfError: It is too large, damaged, or packed in a way that is not known.
    """
    section = image.sections.get(f".debug_{name}")
    if section is not None:
        raw = _bytes(image, section)
        if not section.compressed:
            return raw
        if len(raw) < _CHDR.size or _CHDR.unpack_from(raw)[0] != _ZLIB:
            raise DwarfError("its DWARF is packed in a way that is not known")
        return _inflated(raw[_CHDR.size :])
    old = image.sections.get(f".zdebug_{name}")
    if old is None:
        return None
    raw = _bytes(image, old)
    if raw[:4] != b"ZLIB":
        raise DwarfError("its DWARF is packed in a way that is not known")
    return _inflated(raw[12:])


def _bytes(image: Image, section: Section) -> bytes:
    if section.size > _MAX_SECTION:
        raise DwarfError("its DWARF is too large")
    return bytes(image.data[section.offset : section.offset + section.size])


def _inflated(raw: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(raw, _MAX_SECTION)
    except zlib.error as err:
        raise DwarfError(f"its DWARF is damaged: {err}") from err
    if inflater.unconsumed_tail:
        raise DwarfError("its DWARF is too large")
    return data
