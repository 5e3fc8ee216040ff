"""The picture of `sltrace top` as lines of text, for a terminal of any size; no terminal here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sltrace.buckets import lower_bounds
from sltrace.cli import output
from sltrace.plural import counted, percent_digits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.cli.live.feed import Feed, Line
    from sltrace.cli.live.state import State

Style = Literal["plain", "title", "dim", "warn", "bad", "cool"]

_SHADES = " .:-=+*#%@"
"""From no wait to the most in a cell of the picture; by the logarithm of how many."""
_LABEL = 8
_DECADES = (
    (0, "0"),
    (1_000, "1 us"),
    (10_000, "10 us"),
    (100_000, "100 us"),
    (1_000_000, "1 ms"),
    (10_000_000, "10 ms"),
    (100_000_000, "100 ms"),
    (1_000_000_000, "1 s"),
)
"""Rows of the heatmap: from which latency (ns) on, and its name. A wait is in a row by its bucket's
start."""
_SLOW_NS, _BAD_NS = 1_000_000, 10_000_000
_TALL = 40
"""Lines of a terminal from which on there is room for two rows a decade."""
_TITLES = {"runq": "run queue", "throttled": "quota", "blocked": "blocked"}
_KEYS = "q quit  p pause  v view  k kind  s sort  w window  / filter  r record  ? help"
_HELP = (
    "v, Tab   cgroups, threads, or culprits: who ran while others waited",
    "k        run queue; quota (throttled); blocked",
    "s        sort by time waited, number of waits, p99, longest",
    "w        what the lines are about: the last 10, 60, 1 or 300 seconds",
    "/        only names with this text; Enter ends it, Escape clears it",
    "p, Space stop the picture; the recording goes on",
    "r        begin a recording that stays, in the current folder; again: end it",
    "q        quit",
    "",
    "The heatmap is waits by latency (rows) and second (columns), darker for more,",
    "and ! below it where the recorder lost some. p99 is to 12.5 %.",
)


@dataclass(frozen=True)
class Text:
    """One line of the screen, already safe to print."""

    text: str
    style: Style = "plain"


def draw(feed: Feed, state: State, *, width: int, height: int, status: str) -> list[Text]:
    """The whole picture: at most `height` lines of at most `width` columns.

    Args:
        feed: What is known.
        state: What the user chose.
        width: Columns of the terminal.
        height: Lines of the terminal.
        status: What else to say: a recording that stays.
    """
    shown = [_title(feed, state)]
    if state.help:
        shown += [Text(line) for line in _HELP]
    else:
        shown += _heatmap(feed, state, max(10, width - _LABEL - 1), rows_for(height))
        shown += _table(feed, state, width, height - len(shown) - 2)
    # The last line first: on a small terminal the keys and losses stay.
    body = shown[: max(0, height - 2)]
    body += [Text("")] * (height - 2 - len(body))
    lines = [*body, _losses(feed, status), Text(_prompt(state), "dim")]
    return [Text(_cut(t.text, width), t.style) for t in lines[-height:]]


def encodable(text: str, encoding: str) -> str:
    """The text with `?` for each column of what an encoding does not have.

    Curses shows these as blanks, or sends a byte that the terminal has no character for.
    """
    return "".join(c if c.encode(encoding, "ignore") else "?" * output.width(c) for c in text)


def _title(feed: Feed, state: State) -> Text:
    meta = feed.meta
    overhead = meta.get("overhead") or {}
    wall = overhead.get("wall_ns") or 1
    used = (overhead.get("probe_ns", 0) + overhead.get("recorder_cpu_ns", 0)) / wall
    least = "at least " if overhead.get("probe_ns_at_least") else ""
    host = output.text(meta.get("host") or "")
    paused = "  PAUSED" if state.paused else ""
    seconds = max(0, feed.last_s - feed.first_s)
    return Text(
        f"sltrace top  {host}  {seconds} s  recording takes {least}{used:.1%} of a CPU{paused}",
        "title",
    )


def rows_for(height: int) -> list[tuple[int, str]]:
    """Where the heatmap's rows begin, and what they are called, the shortest waits first."""
    if height < _TALL:
        return list(_DECADES)
    halves = [(3 * start, "") for start, _ in _DECADES if start]
    return sorted([*_DECADES, *halves])


def _heatmap(feed: Feed, state: State, columns: int, steps: list[tuple[int, str]]) -> list[Text]:
    cells = rows_of(feed.heat(state.of, columns), [start for start, _ in steps])
    most = max(1, int(cells.max()))
    rows: list[Text] = [Text(f"{_TITLES[state.of]}, waits by latency and second", "dim")]
    for (start, name), counts in reversed(list(zip(steps, cells, strict=True))):
        style: Style = "bad" if start >= _BAD_NS else "warn" if start >= _SLOW_NS else "cool"
        shades = "".join(shade(int(n), most) for n in counts)
        rows.append(Text(f"{name:>{_LABEL}}|{shades}", style))
    losses = feed.losses.seconds
    first = feed.last_s - columns + 1
    marks = "".join("!" if first + i in losses else "-" for i in range(columns))
    rows.append(Text(f"{'lost' if '!' in marks else '':>{_LABEL}}+{marks}", "dim"))
    return rows


def rows_of(heat: NDArray[np.int64], steps: Sequence[int]) -> NDArray[np.int64]:
    """Latency buckets summed into rows that begin at `steps` (ns, from 0 on)."""
    row = np.searchsorted(steps, lower_bounds(), side="right") - 1
    cells = np.zeros((len(steps), heat.shape[1]), np.int64)
    np.add.at(cells, row, heat)
    return cells


def shade(count: int, most: int) -> str:
    """A character for a number of waits; only none at all is blank."""
    if not count:
        return _SHADES[0]
    steps = len(_SHADES) - 2
    return _SHADES[1 + (round(np.log(count) / np.log(most) * steps) if most > 1 else steps)]


def _table(feed: Feed, state: State, width: int, room: int) -> list[Text]:
    limit = room - 1
    if limit < 1:
        return []
    lines = feed.lines(
        state.of, state.view, state.window, sort=state.sort, wanted=state.wanted, limit=limit
    )
    heads = {"waited": "WAITED/s", "waits": "WAITS/s", "p99": "P99", "max": "MAX"}
    by = heads[state.sort]
    name = f"{state.view.upper()}, {feed.known(state.window)} s"
    if state.wanted or state.typing:
        name += f" /{output.text(state.wanted) if state.wanted else ''}"
    because = "WHO WAITED" if state.view == "culprits" else "BECAUSE OF"
    headers = [name, because, *(f"{h}*" if h == by else h for h in heads.values())]
    rows = [_row(line) for line in lines]
    table = output.table(headers, rows, names=2, columns=width).splitlines()
    none = [] if rows else [Text(_nothing(state), "dim")]
    return [Text(table[0], "title"), *(Text(line) for line in table[1:]), *none]


def _nothing(state: State) -> str:
    if state.view == "culprits" and state.of != "runq":
        return f"{_TITLES[state.of]}: nobody ran instead; v shows cgroups and threads"
    return "no such waits in this time" + (", or none of that name" if state.wanted else "")


def _row(line: Line) -> Sequence[str]:
    return [
        output.text(line.name),
        output.text(line.because),
        output.duration(round(line.waited)),
        f"{line.waits:,.0f}" if line.waits >= 10 else f"{line.waits:.1f}",
        _p99(line),
        output.duration(line.longest),
    ]


def _p99(line: Line) -> str:
    high = line.p99.high_ns
    return output.duration(min(high, line.longest) if high is not None else line.longest)


def _losses(feed: Feed, status: str) -> Text:
    losses = feed.losses
    lost = "nothing was lost"
    if total := losses.total:
        share = f"{losses.fraction:.{percent_digits(losses.fraction)}%} of all"
        lost = f"{counted(total, 'wait')} lost or not seen whole ({share})"
    status = output.text(status) if status else ""
    late = f"the recorder is {feed.late_s} s late" if feed.late_s else ""
    return Text("  ".join(filter(None, (lost, late, status))), "bad" if total or late else "dim")


def _prompt(state: State) -> str:
    if state.typing:
        return f"filter: {output.text(state.wanted) if state.wanted else ''}_  (Enter, Escape)"
    return _KEYS


def _cut(text: str, width: int) -> str:
    if output.width(text) <= width:
        return text
    # Wide characters take two columns: at most that many characters fit.
    text = text[:width]
    while output.width(text) > width:
        text = text[:-1]
    return text
