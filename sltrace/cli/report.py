"""`sltrace report`: wiring only."""

from __future__ import annotations

from pathlib import Path

import click

from sltrace.cli import output


@click.command()
@click.argument("path", metavar="TRACE")
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    help="File to write, - for standard output; by default named after TRACE.",
)
@click.option(
    "--pprof",
    "profiles",
    metavar="FILE_OR_URL",
    multiple=True,
    help="A pprof profile to show beside the waits: a file, or a URL such as "
    "http://HOST:6060/debug/pprof/profile?seconds=10. Repeatable.",
)
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
def command(path: str, file: str | None, profiles: tuple[str, ...], force: bool) -> None:
    """Make one HTML page of TRACE: heatmap, flame graphs, percentiles and losses.

    The page needs no network and no other file: mail it, or attach it to a ticket.
    """
    from heatmaps.page import build_page
    from sltrace.export.sink import refuse_existing
    from sltrace.profiles.stored import read_profiles, stored_profiles
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    file = file or f"{Path(path).absolute().stem}.html"
    # Before the work, which takes seconds on a long trace.
    refuse_existing(file, force=force)
    stored, left_out = stored_profiles(trace)
    read = [profile for where in profiles for profile in read_profiles(where)]
    page = build_page(trace, profiles=[*stored, *read])
    output.write_page(file, page.html, f"{output.number(page.rows)} cells", force=force)
    for note in (*page.notes, *left_out, *trace.notes):
        click.echo(f"note: {output.text(note)}", err=True)
