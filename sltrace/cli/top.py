"""`sltrace top`: the terminal, and the wiring."""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from sltrace.cli.recording import filters, with_loader, with_no_blocked
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.cli.live.feed import Feed
    from sltrace.cli.live.recorders import LiveRecorder
    from sltrace.cli.live.screen import Text
    from sltrace.cli.live.state import State

_LOOK_MS = 100
"""How often keys and new segments are looked for."""


@click.command()
@filters
@with_no_blocked
@with_loader
def command(no_blocked: bool, loader: str, **chosen: tuple[object, ...]) -> None:
    """Watch scheduling waits live: heatmap, worst cgroups, threads and culprits, losses.

    Filters are those of `sltrace record`. Press ? for the keys; r begins a recording that stays.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal", "use sltrace record and sltrace stat in scripts")
    from sltrace.cli.live.recorders import LiveRecorder

    names = {"pids": "pid", "cgroups": "cgroup", "comms": "comm", "cpus": "cpu"}
    options = [
        f"--{names.get(name, 'policy')}={value}"
        for name, values in chosen.items()
        for value in values
    ]
    options += [f"--loader={loader}", *(["--no-blocked"] if no_blocked else [])]
    # Also where it was to be ignored, as below nohup: nobody sees it without its terminal. And
    # SIGQUIT (Ctrl-\\) would leave that without echo.
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.getsignal(signal.SIGTERM))
    # While the view stands still the recorder does not, and would fill the disk.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    recorder = LiveRecorder(options)
    try:
        _await_begin(recorder)
        _watch(recorder)
        if recorder.ended():
            click.echo(f"the recorder has ended: {recorder.why_ended}")
    finally:
        kept = recorder.close()
        for path, failure in kept:
            if not failure:
                click.echo(f"recorded {click.format_filename(path)}")
    if failures := [failure for _, failure in kept if failure]:
        raise failures[0]


def _await_begin(recorder: LiveRecorder) -> None:
    """Waits for the trace, so that what keeps it from being recorded is said on a whole screen."""
    while not (recorder.path / "meta.json").exists() and not recorder.ended():
        time.sleep(0.02)


def _watch(recorder: LiveRecorder) -> None:
    import curses

    from sltrace.cli.live.feed import Feed
    from sltrace.cli.live.state import State

    try:
        curses.wrapper(_loop, recorder, Feed(recorder.path), State())
    except KeyboardInterrupt:
        return
    except curses.error as err:
        raise UsageError(
            f"this terminal cannot be used: {err}", "set TERM, as TERM=xterm-256color"
        ) from err


def _loop(window: Any, recorder: LiveRecorder, feed: Feed, state: State) -> None:
    import curses

    from sltrace.cli.live.screen import draw

    if not curses.tigetstr("cup"):
        raise curses.error("it cannot move its cursor")
    styles = _styles()
    window.timeout(_LOOK_MS)
    curses.set_escdelay(25)
    with contextlib.suppress(curses.error):
        curses.curs_set(0)
    drawn, pressed = (0, 0), True
    while not state.over and not recorder.ended():
        # Segments are taken also while it stands still: they would fill the disk.
        feed.take(advance=not state.paused)
        if pressed or (feed.last_s, feed.late_s) != drawn:
            height, width = window.getmaxyx()
            picture = draw(feed, state, width=width, height=height, status=recorder.status)
            _paint(window, picture, styles)
            drawn = feed.last_s, feed.late_s
        pressed = _take_key(window, state)
        if state.record:
            state.record = False
            recorder.keep()


def _take_key(window: Any, state: State) -> bool:
    """Reads a key, if one was pressed; whether the picture has to change."""
    import curses

    try:
        key = window.get_wch()
    except curses.error:
        return False
    if isinstance(key, str):
        state.press(key)
    elif key == curses.KEY_BACKSPACE:
        state.press("\b")
    elif key == curses.KEY_ENTER:
        state.press("\n")
    elif key == curses.KEY_RESIZE:
        window.clear()
    return True


def _paint(window: Any, lines: list[Text], styles: dict[str, int]) -> None:
    import curses

    from sltrace.cli.live.screen import encodable

    # A terminal that was stopped (Ctrl-S) must not stop the view: it misses the picture.
    if not select.select([], [sys.stdout], [], 0)[1]:
        return
    window.erase()
    for i, line in enumerate(lines):
        try:
            text = encodable(line.text, window.encoding)
            window.addstr(i, 0, text, styles.get(line.style, 0))
        except curses.error:
            # The corner of the last line: it is written, but the cursor has nowhere to go.
            continue
    window.refresh()


def _styles() -> dict[str, int]:
    import curses

    styles = {"title": curses.A_BOLD, "dim": curses.A_DIM, "bad": curses.A_BOLD}
    if curses.has_colors() and click.get_current_context().color is not False:
        curses.use_default_colors()
        for i, (name, colour) in enumerate(
            {
                "bad": curses.COLOR_RED,
                "warn": curses.COLOR_YELLOW,
                "cool": curses.COLOR_CYAN,
            }.items(),
            start=1,
        ):
            curses.init_pair(i, colour, -1)
            styles[name] = curses.color_pair(i)
    return styles
