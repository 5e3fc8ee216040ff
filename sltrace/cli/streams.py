"""Standard output and standard error, where they cannot be written any more."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click


def say(line: str, *, nl: bool = True) -> None:
    """Says a line on standard error, where nobody need listen: it changes no result."""
    try:
        click.echo(line, nl=nl, err=True)
    except OSError:
        abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """Keeps the interpreter from flushing a stream once more at exit, and failing."""
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    except (OSError, ValueError):
        # Not a real file: a test's or an embedder's.
        return
