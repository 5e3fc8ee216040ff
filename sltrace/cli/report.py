"""`sltrace report`: wiring only."""

from __future__ import annotations

import click

from sltrace.cli import output
from sltrace.cli.shared import force_option, output_option, pprof_option, trace_argument


@click.command()
@trace_argument
@output_option
@pprof_option
@force_option
def command(path: str, file: str | None, profiles: tuple[str, ...], force: bool) -> None:
    """Make one HTML page of TRACE: heatmap, flame graphs, percentiles and losses.

    The page needs no network and no other file: mail it, or attach it to a ticket.
    """
    from heatmaps.page import build_page
    from sltrace.export.sink import refuse_existing
    from sltrace.profiles.stored import profiles_beside
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    file = file or output.named_after(path, ".html")
    # Before the work, which takes seconds on a long trace.
    refuse_existing(file, force=force)
    found, left_out = profiles_beside(trace, profiles)
    page = build_page(trace, profiles=found)
    output.write_page(file, page.html, f"{output.number(page.rows)} cells", force=force)
    output.notes((*page.notes, *left_out, *trace.notes), err=True)
