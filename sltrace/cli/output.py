"""Tables, durations and notes for the terminal. JSON output has plain nanoseconds instead."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sltrace.cli import streams
from sltrace.durations import format_duration
from sltrace.export.sink import STDOUT
from sltrace.export.sink import output as opened
from sltrace.export.text import printable
from sltrace.model import OTHERS, RUNQ

if TYPE_CHECKING:
    from sltrace.analysis.ranges import Range

duration = format_duration

_NARROWEST = 12
_NO_WIDTH = ("Mn", "Me")
"""Unicode categories of what goes onto the character before it."""
_PIPE_WIDTH = 1000
"""Columns of a table that goes to a file or pipe: nothing is cut."""


def between(value: Range) -> str:
    """A duration, or the two it lies between where they do not read alike."""
    if value.high_ns is None:
        return f"> {duration(value.low_ns)}" if value.low_ns else "not known"
    low, high = duration(value.low_ns), duration(value.high_ns)
    return high if low == high else f"{low} - {high}"


def number(value: int) -> str:
    """With thousands separators."""
    return f"{value:,}"


def all_others(count: int = 0) -> str:
    """The line that has all that have none of their own; how many, or 0 where nobody knows."""
    return f"{OTHERS} ({number(count)})" if count else OTHERS


def figure(value: float) -> str:
    """Three significant digits, and all before the point: `0.012`, `3.4`, `1,234`."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def rate(value: float) -> str:
    """One digit after the point; of less than one three significant: once in an hour is not 0."""
    return figure(value) if 0 < abs(value) < 1 else f"{value:,.1f}"


def share(part: int, whole: int) -> str:
    """Percent with one digit, or that it is less; empty where there is no whole."""
    if not whole:
        return ""
    return "<0.1%" if 0 < part / whole < 0.0005 else f"{part / whole:.1%}"


def text(value: object) -> str:
    """A value from a trace, safe to print; `-` where unknown, `""` where empty."""
    return "-" if value is None else printable(str(value)) or '""'


def title(name: str) -> str:
    """A kind of wait, or RUNQ for those of a run queue, as a heading."""
    return "run queue" if name == RUNQ else text(name)


def width(value: str) -> int:
    """Terminal columns it takes."""
    return sum(map(_columns, value))


def _columns(character: str) -> int:
    if unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(value: str, columns: int) -> str:
    """Cuts the middle out: both ends of a cgroup path tell something."""
    if width(value) <= columns:
        return value
    head, tail = "", ""
    for i in range(len(value)):
        grown = (head + value[i // 2], tail) if i % 2 == 0 else (head, value[-(i // 2) - 1] + tail)
        if width(grown[0]) + width(grown[1]) + 1 > columns:
            break
        head, tail = grown
    return f"{head}…{tail}"


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, names: int, columns: int | None = None
) -> str:
    """An aligned table.

    Args:
        headers: One per column.
        rows: Cells, already safe to print.
        names: How many columns, from the left, are names: left-aligned, and cut where the
            terminal is too narrow. The others are numbers, never cut.
        columns: Width to fit in; by default the terminal's.
    """
    columns = columns or terminal_width()
    cells = [list(headers), *(list(row) for row in rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(headers))]
    excess = sum(widths) + 2 * (len(widths) - 1) - columns
    while excess > 0 and names:
        widest = max(range(names), key=lambda i: widths[i])
        cut = min(excess, widths[widest] - _NARROWEST)
        if cut <= 0:
            break
        # The widest gives way down to the next widest, then both do.
        runner_up = max((widths[i] for i in range(names) if i != widest), default=0)
        cut = min(cut, max(1, widths[widest] - max(runner_up, _NARROWEST)))
        widths[widest] -= cut
        excess -= cut
    lines = []
    for row in cells:
        shown = [
            shorten(c, w) if i < names else c
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(
            "  ".join(
                c + " " * (w - width(c)) if i < names else " " * (w - width(c)) + c
                for i, (c, w) in enumerate(zip(shown, widths, strict=True))
            ).rstrip()
        )
    return "\n".join(lines)


def terminal_width() -> int:
    """Columns of the terminal; plenty where standard output is none."""
    if not sys.stdout.isatty():
        return _PIPE_WIDTH
    return shutil.get_terminal_size().columns


def notes(lines: Iterable[str], *, err: bool = False) -> None:
    """Prints what must be said beside the numbers, or with `err` on standard error."""
    for line in lines:
        say = streams.say if err else click.echo
        say(f"note: {printable(line)}")


def print_json(value: dict[str, Any]) -> None:
    """One JSON document; ASCII escapes keep hostile names off the terminal."""
    click.echo(json.dumps(value, indent=2))


def named_after(trace: str, suffix: str) -> str:
    """The file to write where none is named: in the current folder, as the trace is called."""
    path = Path(trace)
    # A link is called what it is called; `.` and `..` are called nothing.
    named = path if path.name.strip(".") else path.resolve()
    return named.stem + suffix


def write_page(file: str, page: bytes, holding: str, *, force: bool) -> None:
    """Writes an HTML page, and says on standard error where it is and how large.

    Raises:
        OutputError: It exists, or cannot be written.
    """
    with opened(file, force=force, text=True) as out:
        out.write(page)
    where = "standard output" if file == STDOUT else text(file)
    size = f"{len(page) / 1e6:.1f} MB" if len(page) >= 1e6 else f"{len(page) / 1e3:.0f} kB"
    streams.say(f"{where}: {size}, {holding}")
