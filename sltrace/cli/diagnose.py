"""`sltrace diagnose`: wiring only."""

from __future__ import annotations

import textwrap

import click

from sltrace.cli import output
from sltrace.cli.shared import json_option, trace_argument

_WIDEST = 100


@click.command()
@trace_argument
@json_option
def command(path: str, as_json: bool) -> None:
    """Say in sentences what is wrong in TRACE, and what to do about it.

    Contention, CPU quota, steal, placement and migration, slow wakeups, I/O, goroutines, the GIL,
    event loops and collections: with numbers, most time lost first. Nothing is said where
    nothing is wrong; docs/cli.md has the thresholds.
    """
    from sltrace.analysis.diagnosis import diagnose
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    result = diagnose(trace)
    if as_json:
        output.print_json(result.to_json())
        return
    columns = min(_WIDEST, output.terminal_width())
    said = set()
    for finding in result.findings:
        advice = "As above." if finding.advice in said else finding.advice
        said.add(finding.advice)
        sentence = f"{finding.name.label}: {finding.sentence}"
        for paragraph, indent in ((sentence, "* "), (advice, "  -> ")):
            click.echo(
                textwrap.fill(
                    output.text(paragraph),
                    columns,
                    initial_indent=indent,
                    subsequent_indent=" " * len(indent),
                    break_on_hyphens=False,
                )
            )
    if not result.findings:
        # Without single waits steal is all that is looked for.
        what = "no CPU was stolen" if trace.meta.get("histogram_only") else "nothing is wrong"
        click.echo(f"{what}, as far as this recording shows")
    output.notes(result.notes)
    click.echo(f"losses: {result.losses.sentence}")
