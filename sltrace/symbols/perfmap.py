"""Functions that a JIT compiler wrote down: lines of `START SIZE NAME` in hex and text."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sltrace.symbols.filebytes import Data

_CHUNK = 1 << 18
_SHORTEST = len("0 1 f")
_MAX_NAME = 4096
_DIGITS = 16
_NO_DIGIT = 255
_VALUES = np.full(256, _NO_DIGIT, np.uint8)
_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = range(16)
_VALUES[np.frombuffer(b"ABCDEF", np.uint8)] = range(10, 16)
_BEYOND = b"\n" * 64
"""More than two numbers can take, so that none is looked for behind the end."""

Places = NDArray[np.int64]


def names_in(data: Data, addresses: Iterable[int], since: int = 0) -> dict[int, str]:
    """The functions that cover addresses; of several that which was written last.

    What was written earlier has been thrown away where it overlaps, and is still the function of
    what only it covered. Read from the end, as most is about addresses that nobody asks for.

    Args:
        data: A perf map; lines that do not fit are passed over.
        addresses: Any: a walk can come to 0, say.
        since: Where in it to begin; a line that began before is passed over.
    """
    asked = {address for address in addresses if 0 <= address < 1 << 64}
    left = np.array(sorted(asked), np.uint64)
    found: dict[int, str] = {}
    end = len(data)
    while end > since and len(left):
        begin = max(end - _CHUNK, since)
        text = data[begin:end]
        # The first line is most likely not whole.
        skipped = text.find(b"\n", 0, len(text) - 1) + 1 if begin else 0
        end = begin + skipped if begin > since else since
        if begin and not skipped:
            continue
        text = text[skipped:]
        starts, ends, texts, afters = _functions(text)
        first, after = np.searchsorted(left, starts), np.searchsorted(left, ends)
        owners = np.full(len(left), -1)
        for i in np.flatnonzero(first < after).tolist():
            owners[first[i] : after[i]] = i
        for at in np.flatnonzero(owners >= 0).tolist():
            i = owners[at]
            name = text[texts[i] : min(afters[i], texts[i] + _MAX_NAME)]
            found[int(left[at])] = name.decode(errors="replace")
        left = left[owners < 0]
    return found


def _functions(text: bytes) -> tuple[NDArray[np.uint64], NDArray[np.uint64], Places, Places]:
    """Of each line that is a function: its addresses from and to, and where its name is."""
    raw = np.frombuffer(text + _BEYOND, np.uint8)
    afters = np.flatnonzero(raw[: len(text) + 1] == ord("\n"))
    lines = np.concatenate([np.zeros(1, np.int64), afters[:-1] + 1])
    longer = afters - lines >= _SHORTEST
    lines, afters = lines[longer], afters[longer]
    starts, rest, is_start = _numbers(raw, lines)
    sizes, names, is_size = _numbers(raw, rest)
    ends = starts + sizes
    good = is_start & is_size & (ends > starts)
    return starts[good], ends[good], names[good], afters[good]


def _numbers(
    raw: NDArray[np.uint8], at: Places
) -> tuple[NDArray[np.uint64], Places, NDArray[np.bool_]]:
    """Hexadecimal numbers at places, the places after the space behind them, and which there are.

    Those of many lines at once: a million take 0.5 s, with split() and int() 2 s (measured).
    """
    prefixed = (raw[at] == ord("0")) & (raw[np.minimum(at + 1, len(raw) - 1)] | 32 == ord("x"))
    at = at + 2 * prefixed
    behind = np.minimum(at, len(raw) - 1)
    values = np.zeros(len(at), np.uint64)
    for _ in range(_DIGITS):
        digits = _VALUES[raw[behind]]
        is_digit = digits != _NO_DIGIT
        if not is_digit.any():
            break
        values = np.where(is_digit, values << np.uint64(4) | digits, values)
        behind = behind + is_digit
    return values, behind + 1, (behind > at) & (raw[behind] == ord(" "))
