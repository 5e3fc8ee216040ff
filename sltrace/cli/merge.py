"""`sltrace merge`: wiring only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sltrace.cli import output
from sltrace.cli.files import FILE
from sltrace.cli.shared import force_trace_option
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.profiles.push import Pushed
    from sltrace.trace.machines import Part


@click.command()
@click.argument("paths", metavar="TRACE [TRACE|PROFILE]...", type=FILE, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "out",
    type=FILE,
    metavar="PATH",
    required=True,
    help="Trace to write, a folder.",
)
@force_trace_option
def command(paths: tuple[str, ...], out: str, force: bool) -> None:
    """Make one trace of several TRACEs and pprof PROFILEs from one incident.

    Times are moved to the first trace's clock by way of the wall clocks; ids of different machines
    are kept apart. The result is a trace like any other.
    """
    from sltrace.errors import OutputError
    from sltrace.trace.merge import merge
    from sltrace.trace.reader import Trace

    target = Path(out)
    if target.resolve() in {Path(p).resolve() for p in paths}:
        raise OutputError(f"{target} is one of the traces to merge", "choose another -o")
    files = [path for path in paths if Path(path).is_file()]
    traces = [Trace.open(path) for path in paths if path not in files]
    profiles = _profiles(files)
    parts = merge(traces, target, profiles=profiles, force=force)
    origin = min(p.moved(p.clock.start_ns) for p in parts)
    rows = [
        [
            output.text(p.name),
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
    for row in profiles:
        what = f"profile {output.text(row['app'])}: {output.text(row['measure'])}"
        click.echo(f"{what}{_when(row, parts[0], origin)}")
    output.notes(n for p in parts for n in p.trace.notes)
    merged = Trace.open(target)
    output.notes([*merged.meta["limits"], *merged.meta["notes"]])
    click.echo(f"next: sltrace report {click.format_filename(target)}")


def _profiles(files: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the table `profiles`, on the wall clock."""
    from sltrace.profiles.stored import MAX_READ

    now = time.time_ns()
    rows = [
        pushed.row("file", now, pushed.start_unix_ns or None)
        for file in files
        for pushed in _of_file(file)
    ]
    if sum(row["size"] for row in rows) > MAX_READ:
        raise UsageError(f"more than {MAX_READ >> 20} MB of profiles", "leave some out")
    return rows


def _of_file(file: str) -> list[Pushed]:
    from sltrace.errors import TraceError
    from sltrace.profiles.push import NotAProfile, of_file
    from sltrace.trace.reader import Trace

    try:
        return of_file(Path(file))
    except NotAProfile as err:
        try:
            Trace.open(file)
        except TraceError as no_trace:
            # It may have been meant as either.
            message = f"{no_trace.message}, and not a pprof profile either"
            raise TraceError(message, no_trace.hint) from err
        raise


def _when(row: dict[str, Any], first: Part, origin: int) -> str:
    if row["start_ns"] is None:
        return ", which does not say when it was taken"
    start = (first.reference.monotonic(row["start_ns"]) - origin) / 1e9
    return f", from {start:+.3f} s, {(row['end_ns'] - row['start_ns']) / 1e9:.3f} s long"
