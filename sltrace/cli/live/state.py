"""What the user of `sltrace top` chose, and what each key does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sltrace.cli.live.feed import CLASSES, SORTS, VIEWS

WINDOWS = (10, 60, 1, 300)
"""Seconds the lines are about."""

_T = TypeVar("_T")
_ENTER, _ESCAPE, _BACKSPACE = ("\n", "\r"), "\x1b", ("\x7f", "\b")
_LONGEST_FILTER = 60


@dataclass
class State:
    """The view.

    Attributes:
        of: What is looked at, of CLASSES.
        view: What the lines are, of VIEWS.
        sort: Of SORTS.
        window: Seconds the lines are about.
        wanted: Only names with this in them.
        typing: The filter is being typed.
        paused: The picture stands still; the recording goes on.
        help: The keys are shown.
        over: The user wants to leave.
        record: The user wants a recording that stays begun, or ended.
    """

    of: str = CLASSES[0]
    view: str = next(iter(VIEWS))
    sort: str = SORTS[0]
    window: int = WINDOWS[0]
    wanted: str = ""
    typing: bool = False
    paused: bool = False
    help: bool = False
    over: bool = False
    record: bool = field(default=False)

    def press(self, key: str) -> None:
        """Does what a key is for; unknown ones are for nothing."""
        if self.typing:
            self._type(key)
            return
        match key:
            case "q" | "\x03":
                self.over = True
            case "p" | " ":
                self.paused = not self.paused
            case "v" | "\t":
                self.view = _next(list(VIEWS), self.view)
            case "k":
                self.of = _next(CLASSES, self.of)
            case "s":
                self.sort = _next(SORTS, self.sort)
            case "w":
                self.window = _next(WINDOWS, self.window)
            case "/":
                self.typing = True
            case "\x1b":
                self.wanted, self.help = "", False
            case "r":
                self.record = True
            case "?" | "h":
                self.help = not self.help

    def _type(self, key: str) -> None:
        if key in _ENTER:
            self.typing = False
        elif key == _ESCAPE:
            self.typing, self.wanted = False, ""
        elif key in _BACKSPACE:
            self.wanted = self.wanted[:-1]
        elif key.isprintable():
            self.wanted = (self.wanted + key)[:_LONGEST_FILTER]


def _next(values: Sequence[_T], value: _T) -> _T:
    return values[(values.index(value) + 1) % len(values)]
