"""Durations and times as users type them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

import click

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_PATTERN = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-zµ]{0,2})")


if TYPE_CHECKING:
    _Base = click.ParamType[int]
else:
    _Base = click.ParamType


class DurationType(_Base):
    """A number with a unit, `100us` or `1.5s`, as nanoseconds.

    Args:
        bare_seconds: A number without a unit is seconds; otherwise only 0 may be without.
    """

    name = "duration"

    def __init__(self, bare_seconds: bool = False) -> None:
        self._bare_seconds = bare_seconds

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Parses; fails with a usage error that says how to write it."""
        if isinstance(value, int):
            return value
        match = _PATTERN.fullmatch(str(value).strip().lower())
        unit = match[2] or ("s" if self._bare_seconds else "") if match else ""
        if match and not match[2] and Decimal(match[1]) == 0:
            return 0
        if not match or unit not in _UNITS:
            self.fail(f"{value!r} is not a duration: write 100us, 1.5ms or 2s", param, ctx)
        nanoseconds = int(Decimal(match[1]) * _UNITS[unit])
        if nanoseconds >= 2**63:
            self.fail(f"{value!r} is too long", param, ctx)
        return nanoseconds


DURATION = DurationType()
SECONDS = DurationType(bare_seconds=True)
