"""A cube's columns and names as text that an HTML page can carry.

Columns become one gzip'ed block of little-endian typed arrays, base64 coded; names stay JSON. The
page decodes both with the browser's own DecompressionStream, so it needs no library for it.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_NAME = 4096
"""Characters kept of a name. A path is at most 4096 bytes (PATH_MAX), a comm 15, but a trace's
author may write anything."""

_MICROSECONDS = re.compile(r"(?<=\d )us\b")

_TYPES = (("u1", 0xFF), ("u2", 0xFFFF), ("u4", 0xFFFFFFFF))
_ALIGNMENT = 8
_GZIP_LEVEL = 6


class ColumnBlock:
    """Packs integer columns; each as narrow as its values allow.

    Values above 2^32 become float64: exact up to 2^53, which is 104 days in nanoseconds.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._columns: dict[str, dict[str, Any]] = {}

    def add(self, name: str, values: Iterable[int] | NDArray[Any]) -> None:
        """Adds one column.

        Args:
            name: What the page calls it.
            values: Not negative, one-dimensional.

        Raises:
            ValueError: A value is negative.
        """
        column = np.asarray(values if isinstance(values, np.ndarray) else list(values))
        if column.size and column.min() < 0:
            raise ValueError(f"column {name} has a negative value")
        largest = column.max() if column.size else 0
        kind = next((code for code, limit in _TYPES if largest <= limit), "f8")
        self._bytes += bytes(-len(self._bytes) % _ALIGNMENT)
        self._columns[name] = {"at": len(self._bytes), "type": kind, "length": int(column.size)}
        self._bytes += column.astype("<" + kind).tobytes()

    @property
    def directory(self) -> dict[str, dict[str, Any]]:
        """Offset, type and length of each column, for the page."""
        return self._columns

    def text(self) -> str:
        """The block, gzip'ed and base64 coded; the same bytes for the same columns."""
        return base64.b64encode(gzip.compress(bytes(self._bytes), _GZIP_LEVEL, mtime=0)).decode()


def embedded_json(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it is in, whatever its strings hold.

    `<`, `>` and `&` and the line ends U+2028 and U+2029 become escapes, as do lone surrogates.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace").decode()


def said(sentence: str) -> str:
    """A sentence of the command line, bounded, with microseconds as pages write them."""
    return _MICROSECONDS.sub("µs", bounded(sentence))


def bounded(name: object) -> str:
    """A name of the trace, cut to MAX_NAME characters."""
    text = "" if name is None else str(name)
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
