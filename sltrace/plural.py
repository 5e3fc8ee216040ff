"""Numbers of things in words, and shares of them."""

from __future__ import annotations

import math


def counted(count: int, what: str) -> str:
    """How many of it: `1 wait`, `2,000 waits`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def percent_digits(fraction: float) -> int:
    """Digits after the point of a share above 0, in percent: few among many are not none."""
    return max(2, 1 - math.floor(math.log10(100 * fraction)))
