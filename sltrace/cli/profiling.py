"""The option that puts profiles beside the waits, for every command that makes a report."""

from __future__ import annotations

import click

from sltrace.cli.completing import FILE

pprof_option = click.option(
    "--pprof",
    "profiles",
    type=FILE,
    metavar="FILE_OR_URL",
    multiple=True,
    help="A pprof profile to show beside the waits: a file, or a URL such as "
    "http://HOST:6060/debug/pprof/profile?seconds=10. Repeatable.",
)
