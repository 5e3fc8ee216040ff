"""Durations as users write and read them: a number with a unit."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SHOWN = (("s", 10**9), ("ms", 10**6), ("us", 10**3))
_PATTERN = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-zµ]{0,2})")


def parse_duration(text: str, *, bare_seconds: bool = False) -> int:
    """`100us`, `1.5s`, `2m` as nanoseconds.

    Args:
        text: What the user wrote.
        bare_seconds: A number without a unit is seconds; otherwise only 0 may be without.

    Raises:
        ValueError: It is none, or too long; the text says which and how to write it.
    """
    match = _PATTERN.fullmatch(text.strip().lower())
    unit = match[2] or ("s" if bare_seconds else "") if match else ""
    if match and not match[2] and Decimal(match[1]) == 0:
        return 0
    if not match or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a duration: write 100us, 1.5ms or 2s")
    nanoseconds = int(Decimal(match[1]) * _UNITS[unit])
    if nanoseconds >= 2**63:
        raise ValueError(f"{text!r} is too long")
    return nanoseconds


def format_duration(ns: int) -> str:
    """Three significant digits with a unit: `1.23 ms`, `45 ns`, `1,234 s`."""
    for unit, size in _SHOWN:
        # 999.5 us would print as 1000 us.
        if abs(ns) >= size * 0.9995:
            value = ns / size
            places = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            return f"{value:,.{places}f} {unit}"
    return f"{ns} ns"
