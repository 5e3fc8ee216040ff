"""The one line of the terminal that says how a recording goes, and is rewritten."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

import click

from sltrace.cli import streams

if TYPE_CHECKING:
    from sltrace.capture.accounts import Status

_USUAL_COLUMNS = 80
"""Where a terminal does not say how wide it is."""


class StatusLine:
    """What a recording says on standard error.

    Args:
        quiet: Nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Says a line that stays. Where nobody listens any more, the recording goes on."""
        if not self._quiet:
            streams.say(line)

    def show(self, line: str) -> None:
        """Rewrites the status line, where standard error is a terminal that can."""
        if self._quiet or is_dumb() or not sys.stderr.isatty():
            return
        # A terminal that was stopped (Ctrl-S) must not stop the recording: it misses the line.
        if select.select([], [sys.stderr], [], 0)[1]:
            streams.say("\r\033[K" + line, nl=False)

    def show_status(self, status: Status) -> None:
        """Shows how the recording goes in the status line."""
        self.show(status_line(status, _columns()))


def status_line(status: Status, columns: int) -> str:
    """One line about a recording that is under way, with what of it fits before the last column."""
    lost = f"{status.lost:,} lost" if status.lost else "nothing lost"
    if status.lost:
        lost = click.style(lost, fg="red", bold=True)
    parts = [
        f"{status.seconds:5.0f} s",
        f"{status.waits:,} waits kept",
        lost,
        f"{status.missed:,} missed",
        f"{status.switches_per_s:,.0f} switches/s",
        f"probes {'at least ' * status.at_least}{status.probe_share:.1%}, "
        f"recorder {status.recorder_share:.1%} of a CPU",
    ]
    while len(parts) > 1 and len(click.unstyle("  ".join(parts))) >= columns:
        parts.pop()
    return "  ".join(parts)


def is_dumb() -> bool:
    """Whether the terminal knows no escape sequences, as those within editors."""
    return os.environ.get("TERM") == "dumb"


def _columns() -> int:
    """Of the terminal that standard error is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS
