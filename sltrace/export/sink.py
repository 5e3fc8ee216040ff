"""Where an export goes: a new file that appears when it is whole, or standard output."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sltrace.errors import OutputError, UsageError

STDOUT = "-"


@dataclass(frozen=True)
class Written:
    """What an exporter wrote.

    Attributes:
        waits: How many waits it covers.
        wait_ns: Their total.
        notes: What it had to leave out, one sentence each.
    """

    waits: int
    wait_ns: int
    notes: tuple[str, ...] = ()


@contextmanager
def output(path: str, *, force: bool = False, text: bool = False) -> Iterator[BinaryIO]:
    """Opens an output. On any error no half-written file stays behind.

    Args:
        path: The file, created 0600 as traces are; `-` for standard output.
        force: Replace a file that is there.
        text: May be shown on a terminal.

    Raises:
        OutputError: It exists, or cannot be written; or standard output is closed.
        UsageError: Binary output to a terminal.
    """
    if path == STDOUT:
        if sys.__stdout__ is None:
            # What stands in for it takes everything and keeps nothing.
            raise OutputError("standard output is closed", "name a file instead of -")
        if not text and sys.stdout.isatty():
            raise UsageError("binary output would go to the terminal", "give -o FILE, or a pipe")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    with _errors_named(target):
        refuse_existing(path, force=force)
        if target.is_dir():
            raise OutputError(f"{target} is a folder", "name a file")
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            # A device or a pipe is written to, never replaced.
            with target.open("wb") as device:
                yield device
            return
        descriptor, partial = tempfile.mkstemp(prefix=".sltrace-", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            Path(partial).replace(target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise


def refuse_existing(path: str, *, force: bool) -> None:
    """Says now what `output` would say after all the work.

    Raises:
        OutputError: The file exists.
    """
    target = Path(path)
    if path != STDOUT and not force and (target.exists() or target.is_symlink()):
        raise OutputError(f"{target} exists already", "give --force to replace it, or another name")


@contextmanager
def _errors_named(target: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as err:
        hint = "name another file, or free some space"
        raise OutputError(f"cannot write {target}: {err.strerror or err}", hint) from err
