"""Durations and times as options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sltrace.durations import parse_duration

if TYPE_CHECKING:
    _Base = click.ParamType[int]
else:
    _Base = click.ParamType


class DurationType(_Base):
    """A number with a unit, `100us` or `1.5s`, as nanoseconds.

    Args:
        bare_seconds: A number without a unit is seconds; otherwise only 0 may be without.
        least: The shortest that can be, written so.
    """

    name = "duration"

    def __init__(self, *, bare_seconds: bool = False, least: str = "0") -> None:
        self._bare_seconds = bare_seconds
        self._least = least

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Parses; fails with a usage error that says how to write it."""
        if isinstance(value, int):
            return value
        try:
            duration = parse_duration(str(value), bare_seconds=self._bare_seconds)
        except ValueError as err:
            self.fail(str(err), param, ctx)
        if duration < parse_duration(self._least):
            self.fail(f"{value!r} is too short: {self._least} at least", param, ctx)
        return duration


DURATION = DurationType()
RECORDED = DurationType(bare_seconds=True, least="1ms")
"""How long to record."""
