"""`sltrace chain`: wiring only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sltrace.cli import output
from sltrace.cli.files import FILE
from sltrace.cli.shared import force_option, json_option, trace_argument

if TYPE_CHECKING:
    from sltrace.analysis.golang.chain import Chain, Step


@click.command()
@trace_argument
@click.option("--trace-id", metavar="ID", help="Only waits of this trace, and their path.")
@click.option("--goid", type=int, metavar="N", help="Only waits of this goroutine, and their path.")
@click.option("--pid", type=int, metavar="N", help="Only waits of this process.")
@click.option("--top", type=click.IntRange(min=1), help="Lines to show; 20 unless --json.")
@json_option
@click.option(
    "-o",
    "--output",
    "file",
    type=FILE,
    metavar="FILE",
    help="Make an HTML page of it, - for standard output.",
)
@force_option
def command(
    path: str,
    trace_id: str | None,
    goid: int | None,
    pid: int | None,
    top: int | None,
    as_json: bool,
    file: str | None,
    force: bool,
) -> None:
    """Show who blocked whom among the goroutines of TRACE: why, where, and who let them go on.

    Needs a recording with --go-level 2, which times the waits that the runtime tracks, 1 in 8, or
    with level 3, which times all.
    """
    from dataclasses import replace

    from sltrace.analysis.golang.chain import chain
    from sltrace.analysis.timeline import normal_id
    from sltrace.errors import UsageError
    from sltrace.trace.reader import Trace

    if file is not None and top:
        raise UsageError("the page has all of it", "leave --top or -o out")
    if file and as_json:
        raise UsageError("-o makes a page and --json a document", "leave one of them out")
    trace = Trace.open(path)
    wanted = normal_id(trace_id) if trace_id is not None else None
    result = chain(trace, wanted, goid, pid)
    if file:
        from heatmaps.chainpage import build_chain_page

        subject = [f"trace {wanted}"] if wanted else []
        subject += [f"goroutine {goid}"] if goid is not None else []
        subject += [f"process {pid}"] if pid is not None else []
        page = build_chain_page(trace, result, ", ".join(subject))
        links = f"{output.number(len(result.links))} links"
        output.write_page(file, page, links, force=force)
        return
    if as_json:
        shown = replace(result, links=result.links[:top], steps=result.steps[:top])
        output.print_json(shown.to_json())
        return
    _show(result, top or 20)


def _show(result: Chain, top: int) -> None:
    from sltrace.analysis.golang.chain import NOT_RECORDED

    rows = [
        [
            output.text(link.where),
            output.text(link.why.words),
            output.text(link.waker),
            link.why.costs or NOT_RECORDED,
            output.duration(link.blocked_ns) if link.blocked_ns else NOT_RECORDED,
            output.duration(link.runq_ns),
            output.number(link.count),
        ]
        for link in result.links[:top]
    ]
    headers = ["WAITS IN", "WHY", "WOKEN BY", "COSTS", "PARKED", "THEN FOR A P", "WAITS"]
    click.echo(output.table(headers, rows, names=4))
    _tell_rest(len(rows), len(result.links), len(result.links))
    if result.steps:
        click.echo()
        steps = [
            [
                output.duration(step.start_ns),
                _goroutine(step, several=result.several),
                output.text(step.where),
                "waits for a P" if step.kind == "goroutine" else output.text(step.why.words),
                output.text(step.waker)
                + (f" (goroutine {step.waker_goid})" if step.waker_goid else ""),
                output.duration(step.end_ns - step.start_ns),
            ]
            for step in result.steps[:top]
        ]
        click.echo(
            output.table(["FROM", "GOROUTINE", "IN", "WHY", "WOKEN BY", "FOR"], steps, names=5)
        )
        _tell_rest(len(steps), result.steps_total, len(result.steps))
    click.echo()
    output.notes(result.notes)
    click.echo(f"losses: {result.losses.sentence}")


def _goroutine(step: Step, *, several: bool) -> str:
    """Its number, with the program that it is of where there are several."""
    if not several:
        return str(step.goid)
    return f"{step.goid} of pid {step.pid}" + (f", program {step.nth}" if step.nth else "")


def _tell_rest(shown: int, total: int, at_most: int) -> None:
    """What is not shown of a table, and how to see more of it."""
    if total <= shown:
        return
    more = "all" if total == at_most else f"the first {at_most:,}"
    hint = f"; --top {at_most} shows {more}" if at_most > shown else ""
    click.echo(f"and {total - shown:,} more{hint}")
