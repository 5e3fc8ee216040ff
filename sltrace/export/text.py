"""Text from a trace made safe to show: a traced program chooses its own name."""

from __future__ import annotations

import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that control a terminal, reorder text (bidi), or show as nothing."""


def printable(text: str) -> str:
    """The text with control, bidi and invisible characters as escapes such as `\\x1b`, and so with
    spaces where there is nothing else."""
    if text.isspace():
        return "".join(map(_escape, text))
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in _UNSAFE else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
