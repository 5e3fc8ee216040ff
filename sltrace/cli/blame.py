"""`sltrace blame`: wiring only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sltrace.analysis.whose import IDLE, NOT_KNOWN, OTHERS
from sltrace.cli import output
from sltrace.cli.selecting import Choice, nothing, selection_options
from sltrace.cli.shared import json_option, trace_argument
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.analysis.blame import Blame, Cell


@click.command()
@trace_argument
@click.option(
    "--by",
    type=click.Choice(["cgroup", "comm", "pid"]),
    default="cgroup",
    show_default=True,
    help="What victims and culprits are.",
)
@click.option("--top", type=click.IntRange(min=1), help="Pairs to show; 20 unless --json.")
@json_option
@selection_options
def command(path: str, by: str, top: int | None, as_json: bool, choice: Choice) -> None:
    """Who ran while others waited for a CPU, in TRACE.

    Each wait's time goes to the task that ran most on that CPU meanwhile, as long as it ran; the
    rest of the wait to other tasks. Throttled time goes to the quota of the cgroup, and time in
    which the CPU was idle to the idle CPU: that is wakeup latency, not contention.
    """
    from sltrace.analysis.blame import blame
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    limit = top or (None if as_json else 20)
    selection = choice.selection(trace)
    result = blame(trace, by, selection, limit=limit)
    if as_json:
        output.print_json(result.to_json())
        return
    if not result.cells:
        click.echo(nothing(trace, selection))
        of = next(iter(selection.values), "kind")
        click.echo(f"next: sltrace stat {click.format_filename(path)} --by {of}")
        _show_notes(result)
        return
    _show(result)


def _show(result: Blame) -> None:
    rows = [
        [_victim(c, result.by), _culprit(c, result.by), *_figures(c, result.total_ns)]
        for c in result.cells
    ]
    if result.rest.waits:
        rows.append([output.all_others(), "", *_figures(result.rest, result.total_ns)])
    rows.append(["total", "", output.duration(result.total_ns), "", output.number(result.waits)])
    headers = [f"VICTIM ({result.by})", "WAITED FOR", "TIME", "SHARE", "WAITS"]
    click.echo(output.table(headers, rows, names=2))
    click.echo()
    if result.partial:
        click.echo(
            f"note: of {counted(result.partial, 'wait')} only the latest tasks that ran are "
            "known; the time before them is under `not known`"
        )
    _show_notes(result)


def _show_notes(result: Blame) -> None:
    output.notes(result.notes)
    click.echo(f"losses: {result.losses.sentence}")


def _figures(cell: Cell, total_ns: int) -> list[str]:
    share = output.share(cell.wait_ns, total_ns)
    return [output.duration(cell.wait_ns), share, output.number(cell.waits)]


def _victim(cell: Cell, by: str) -> str:
    return _name(cell.victim, cell.victim_name, by)


def _culprit(cell: Cell, by: str) -> str:
    match cell.what:
        case "task":
            return _name(cell.culprit, cell.culprit_name, by)
        case "quota":
            return f"quota of {output.text(cell.culprit)}"
        case "idle":
            return f"{IDLE} (wakeup latency)"
        case "others":
            return OTHERS
        case _:
            return NOT_KNOWN


def _name(value: object, name: str | None, by: str) -> str:
    return f"{output.text(name)} ({output.text(value)})" if by == "pid" else output.text(value)
