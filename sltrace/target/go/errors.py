"""Why a Go process cannot be looked into."""

from __future__ import annotations


class NotGoError(Exception):
    """The executable is not of Go's own linker."""


class UnknownError(NotGoError):
    """The executable could not be opened: it has ended, or too many files are open."""


class RefusedError(Exception):
    """A Go process whose runtime is not what is known; the message says why, in a sentence."""


class DwarfError(Exception):
    """There is DWARF, but not as it is known; the message says what."""
