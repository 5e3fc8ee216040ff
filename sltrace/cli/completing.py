"""What the shell completes values of arguments and options to."""

from __future__ import annotations

import click

from sltrace.analysis.selection import DIMENSIONS

FILE = click.Path(readable=False)
"""A file or folder, which need not be there: what opens it says in its own words what is wrong."""


def dimensions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The dimensions that the last of a list with commas can become."""
    before, comma, begun = incomplete.rpartition(",")
    return [before + comma + name for name in DIMENSIONS if name.startswith(begun)]
