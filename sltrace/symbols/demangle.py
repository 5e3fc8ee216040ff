"""Readable names for C++ and Rust symbols, through the C++ runtime where it is installed."""

from __future__ import annotations

import ctypes as c
import re
from functools import cache, lru_cache

_LONGEST_MANGLED = 2048
_LONGEST = 512
_REFERENCE = re.compile(r"S[0-9A-Z]*_|T[0-9]*_")
_MOST_REFERENCES = 32
"""Two to what came before double it: of 40 in 155 characters came 1.1 MB (measured)."""
# Legacy Rust names are C++ names with a hash at their end.
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")


@cache
def _runtime() -> c.CDLL | None:
    for name in ("libstdc++.so.6", "libc++abi.so.1"):
        try:
            lib = c.CDLL(name)
            lib.__cxa_demangle.restype = c.c_void_p
            lib.__cxa_demangle.argtypes = (c.c_char_p, c.c_void_p, c.c_void_p, c.c_void_p)
        except (OSError, AttributeError):
            continue
        return lib
    return None


@lru_cache(maxsize=1 << 16)
def readable(name: str) -> str:
    """The name for people: demangled, without control characters, at most 512 characters."""
    if name.startswith("_Z") and not _explodes(name) and (lib := _runtime()):
        status = c.c_int()
        text = lib.__cxa_demangle(name.encode(), None, None, c.byref(status))
        if text:
            name = c.string_at(text).decode(errors="replace")
            libc = c.CDLL(None)
            libc.free.argtypes = (c.c_void_p,)
            libc.free(text)
            name = _RUST_HASH.sub("", name)
    return "".join(ch if ch.isprintable() else "?" for ch in name[:_LONGEST])


def _explodes(name: str) -> bool:
    """Whether it may be of any size once it is readable: whoever is recorded makes its names."""
    return len(name) > _LONGEST_MANGLED or len(_REFERENCE.findall(name)) > _MOST_REFERENCES
