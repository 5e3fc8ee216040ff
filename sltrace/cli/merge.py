"""`sltrace merge`: wiring only."""

from __future__ import annotations

from pathlib import Path

import click

from sltrace.cli import output


@click.command()
@click.argument("paths", metavar="TRACE TRACE...", nargs=-1, required=True)
@click.option(
    "-o", "--output", "out", metavar="PATH", required=True, help="Trace to write, a folder."
)
@click.option("-f", "--force", is_flag=True, help="Replace a trace that is there.")
def command(paths: tuple[str, ...], out: str, force: bool) -> None:
    """Make one trace of several TRACEs of one incident.

    Clocks are aligned through their wall clocks, to that of the first; ids of different machines
    are kept apart. The result is a trace like any other.
    """
    from sltrace.errors import OutputError
    from sltrace.trace.merge import merge
    from sltrace.trace.reader import Trace

    target = Path(out)
    if target.resolve() in {Path(p).resolve() for p in paths}:
        raise OutputError(f"{target} is one of the traces to merge", "choose another -o")
    parts = merge([Trace.open(path) for path in paths], target, force=force)
    origin = min(p.moved(p.clock.start_ns) for p in parts)
    rows = [
        [
            output.text(p.trace.path.name),
            output.text(p.label),
            f"+{(p.moved(p.clock.start_ns) - origin) / 1e9:.3f} s",
            f"{(p.clock.end_ns - p.clock.start_ns) / 1e9:.3f} s",
            output.number(p.pid),
            output.number(p.cpu),
        ]
        for p in parts
    ]
    headers = ["TRACE", "MACHINE", "FROM", "LENGTH", "PIDS FROM", "CPUS FROM"]
    click.echo(output.table(headers, rows, names=2))
    output.notes(n for p in parts for n in p.trace.notes)
    merged = Trace.open(target)
    output.notes(merged.meta["limits"])
    click.echo(f"next: sltrace report {click.format_filename(target)}")
