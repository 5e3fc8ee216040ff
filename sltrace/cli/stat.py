"""`sltrace stat`: wiring only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sltrace.analysis.selection import DIMENSIONS
from sltrace.cli import output
from sltrace.cli.completing import dimensions
from sltrace.cli.selecting import Choice, nothing, selection_options
from sltrace.cli.shared import json_option, trace_argument
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.analysis.latency import Stat
    from sltrace.analysis.ranges import Group
    from sltrace.analysis.selection import Value

_FIGURES = ("WAITS", "TOTAL", "P50", "P90", "P99", "P99.9", "MAX")


@click.command()
@trace_argument
@click.option(
    "--by",
    shell_complete=dimensions,
    default="kind",
    show_default=True,
    metavar="DIM[,DIM...]",
    help=f"Group by these: {', '.join(DIMENSIONS)}. Unless kind is one of them (or --only names "
    "some), the groups are of run-queue latency.",
)
@click.option("--top", type=click.IntRange(min=1), help="Groups to show; 20 unless --json.")
@click.option(
    "--kept",
    is_flag=True,
    help="Look only at the waits in the trace: without those that are missing, or too short for "
    "--min-latency.",
)
@json_option
@selection_options
def command(path: str, by: str, top: int | None, kept: bool, as_json: bool, choice: Choice) -> None:
    """Counts, totals and percentiles of the waits in TRACE.

    Run-queue latency is the kinds runq_wakeup and runq_preempt: runnable, and no CPU. Time without
    CPU quota (throttled) and time off the CPU (blocked) are totalled apart.
    """
    from sltrace.analysis.latency import stat
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    limit = top or (None if as_json else 20)
    names = [name.strip() for name in by.split(",") if name.strip()]
    selection = choice.selection(trace)
    result = stat(trace, names, selection, limit=limit, kept_only=kept)
    if as_json:
        output.print_json(result.to_json())
        return
    if not result.totals:
        click.echo(nothing(trace, selection))
        output.notes(result.notes)
        click.echo(f"losses: {result.losses.sentence}")
        return
    _show(result)


def _show(result: Stat) -> None:
    totals = [
        [f"total, {output.title(name)}", *_figures(group)] for name, group in result.totals.items()
    ]
    click.echo(output.table(["", *_FIGURES], totals, names=1))
    if result.by:
        rows = [[*map(_key, result.by, g.keys), *_figures(g)] for g in result.groups]
        if result.rest.groups:
            blank = [""] * (len(result.by) - 1)
            what = output.all_others(result.rest.groups)
            rest = [output.number(result.rest.count), output.duration(result.rest.total_ns)]
            rows.append([what, *blank, *rest, "", "", "", "", ""])
        headers = [name.upper() for name in result.by]
        click.echo()
        click.echo(output.table([*headers, *_FIGURES], rows, names=len(headers)))
    click.echo()
    if censored := sum(g.censored or 0 for g in result.totals.values()):
        longer = f"and {'was' if censored == 1 else 'were'} longer"
        click.echo(f"note: {counted(censored, 'wait')} began before the recording {longer}")
    output.notes(result.notes)
    click.echo(f"losses: {result.losses.sentence}")


def _key(dimension: str, value: Value) -> str:
    # Waits of runtimes have none of their own.
    if dimension == "policy" and value is None:
        return "not recorded"
    return output.text(value)


def _figures(group: Group) -> list[str]:
    return [
        output.number(group.count),
        output.duration(group.total_ns),
        *map(output.between, (*group.quantiles, group.longest)),
    ]
