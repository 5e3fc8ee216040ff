"""Arguments and options that several commands have."""

from __future__ import annotations

import click
from click.core import ParameterSource

from sltrace.cli.files import FILE

trace_argument = click.argument("path", metavar="TRACE", type=FILE)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document; times in ns."
)
output_option = click.option(
    "-o",
    "--output",
    "file",
    type=FILE,
    metavar="FILE",
    help="File to write, - for standard output; by default named after TRACE.",
)
force_option = click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
force_trace_option = click.option(
    "-f", "--force", is_flag=True, help="Replace a trace that is there."
)
pprof_option = click.option(
    "--pprof",
    "profiles",
    type=FILE,
    metavar="FILE_OR_URL",
    multiple=True,
    help="A pprof profile to show beside the waits: a file, or a URL such as "
    "http://HOST:6060/debug/pprof/profile?seconds=10. Repeatable.",
)


def given() -> set[str]:
    """The parameters of the command that runs that were given, even if by their default's value."""
    context = click.get_current_context()
    names = (parameter.name or "" for parameter in context.command.params)
    return {n for n in names if context.get_parameter_source(n) is ParameterSource.COMMANDLINE}
