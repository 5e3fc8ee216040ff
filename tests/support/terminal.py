"""A program in a terminal: a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte

_PATIENCE_S = 60
"""The machine may be full of others' work."""

_REPEAT = re.compile(rb"(.)\x1b\[(\d+)b", re.DOTALL)
"""REP, which Pyte does not know, and curses sends where the locale is not UTF-8."""


class Terminal:
    """A running program and its screen."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int, columns: int, lines: int) -> None:
        self.process = process
        self._fd = fd
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""

    @property
    def lines(self) -> list[str]:
        """The screen now."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """As dragging the window's corner does."""
        self._screen.resize(lines, columns)
        _set_size(self._fd, columns, lines)

    def wait_for(self, condition: Callable[[Terminal], object], what: str = "") -> None:
        """Reads until the screen is as wanted.

        Raises:
            AssertionError: It did not become so; has the screen.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not condition(self):
            assert time.monotonic() < deadline, f"{what}\n{self.text}"
            if not self._read() and self.process.poll() is not None:
                assert condition(self), f"{what}: it ended\n{self.text}"

    def end(self) -> int:
        """Reads until it ends; its exit code."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end\n{self.text}"
            self._read()
        while self._read():
            continue
        return self.process.returncode

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], 0.1)
        if not ready:
            return False
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # nobody has the other end open any more
            return False
        self.raw += data
        self._stream.feed(_REPEAT.sub(lambda found: found[1] * (1 + int(found[2])), data))
        return bool(data)


@contextmanager
def terminal(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    columns: int = 80,
    lines: int = 24,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Starts a program in a terminal; killed at the end of the block if it is still there."""
    ours, theirs = pty.openpty()
    _set_size(ours, columns, lines)
    process = subprocess.Popen(
        [str(c) for c in command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        start_new_session=True,
        # Ctrl-C and changes of size go to whoever the terminal controls.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        env={
            **os.environ,
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            **(environment or {}),
        },
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, columns, lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def _set_size(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
