"""What the shell completes values of arguments and options to."""

from __future__ import annotations

import click

from sltrace.analysis.selection import DIMENSIONS
from sltrace.model import POLICIES, Kind


def dimensions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The dimensions that the last of a list with commas can become."""
    before, comma, begun = incomplete.rpartition(",")
    return [before + comma + name for name in DIMENSIONS if name.startswith(begun)]


def conditions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What `DIM=VALUE` can become; values of a dimension where all traces have the same ones."""
    name, equals, begun = incomplete.partition("=")
    if not equals:
        return [f"{name}=" for name in DIMENSIONS if name.startswith(incomplete)]
    values = {"kind": [k.label for k in Kind], "policy": POLICIES.values()}.get(name, ())
    return [f"{name}={value}" for value in values if value.startswith(begun)]
