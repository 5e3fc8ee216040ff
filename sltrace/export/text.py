"""Text from a trace made safe to show: a traced program chooses its own name."""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that control a terminal, reorder text (bidi), or show as nothing."""
_NOTHING = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that show as nothing, too: Default_Ignorable_Code_Point (Unicode 15), and an
empty Braille pattern."""


def printable(text: str) -> str:
    """The text with control, bidi and invisible characters as escapes such as `\\x1b`, and so with
    spaces where there is nothing else."""
    if text.isspace():
        return "".join(map(_escape, text))
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if _is_unsafe(c) else c for c in text)


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE or bool(_NOTHING.match(character))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
