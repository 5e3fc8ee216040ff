"""Values of options of `sltrace record`: shares, lists of CPUs, sizes."""

from __future__ import annotations

import math

from sltrace.errors import UsageError

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def share(text: str | None) -> float | None:
    """Of a budget in percent; infinity for none."""
    if text is None:
        return None
    if text == "none":
        return math.inf
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0
    if not 0.1 <= percent <= 100:
        raise UsageError(f"--go-budget {text!r} is out of range", "0.1 to 100 percent, or none")
    return percent / 100


def cpu_list(texts: tuple[str, ...]) -> tuple[int, ...]:
    """`0-3,8` as the kernel writes lists of CPUs."""
    found: set[int] = set()
    for part in ",".join(texts).split(",") if texts else []:
        first, dash, last = part.strip().partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise UsageError(f"--cpu {part!r} is not a CPU list", "write it as 0-3,8") from None
        if not 0 <= low <= high < 1 << 14:
            raise UsageError(f"--cpu {part!r} is not a CPU list", "write it as 0-3,8")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def size_in_bytes(option: str, text: str, least: str, most: str) -> int:
    """Bytes from `512k`, `4M`; `least` and `most` are written so, too."""
    size = _bytes(text)
    if size is None:
        raise UsageError(f"{option} {text!r} is not a size", "write it as 512k, 4M or 1G")
    if not (_bytes(least) or 0) <= size <= (_bytes(most) or 0):
        raise UsageError(f"{option} {text} is out of range", f"{least} to {most}")
    return size


def _bytes(text: str) -> int | None:
    number, unit = text[:-1], text[-1:].lower()
    try:
        return int(number) * _UNITS[unit] if unit in _UNITS else int(text)
    except ValueError:
        return None
