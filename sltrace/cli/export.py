"""`sltrace export`: wiring only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from sltrace.cli import output, streams
from sltrace.cli.completing import dimensions
from sltrace.cli.selecting import Choice, nothing, selection_options
from sltrace.cli.shared import force_option, given, output_option, trace_argument
from sltrace.errors import UsageError
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.analysis.selection import Selection
    from sltrace.export.sink import Written
    from sltrace.trace.reader import Trace

_SUFFIX = {"pprof": ".pb.gz", "folded": ".folded", "parquet": ".parquet", "json": ".ndjson"}
_STACK_FORMATS = ("pprof", "folded")
_ONLY_FOR = {"stack": _STACK_FORMATS, "weight": ("folded",), "roots": ("folded",)}
"""Parameters that mean nothing for other formats."""


@click.command()
@trace_argument
@click.option(
    "--to", "target", type=click.Choice(list(_SUFFIX)), required=True, help="Format to write."
)
@output_option
@force_option
@click.option(
    "--stack",
    type=click.Choice(["victim", "waker"]),
    default="victim",
    show_default=True,
    help="pprof, folded: whose stack.",
)
@click.option(
    "--weight",
    type=click.Choice(["ns", "count"]),
    default="ns",
    show_default=True,
    help="folded: what the numbers are.",
)
@click.option(
    "--root",
    "roots",
    shell_complete=dimensions,
    default="comm",
    show_default=True,
    metavar="DIM[,DIM...]",
    help="folded: outermost frames; empty for none.",
)
@selection_options
def command(
    path: str, target: str, file: str | None, force: bool, choice: Choice, **options: str
) -> None:
    """Write the waits of TRACE in another format.

    pprof and folded are for profilers and hold the time spent waiting for a CPU (run queue and
    throttled) unless --only names kinds; parquet and json hold every wait, sorted by time.
    """
    from sltrace.export.sink import STDOUT
    from sltrace.export.sink import output as opened
    from sltrace.trace.reader import Trace

    _refuse_without_meaning(target)
    trace = Trace.open(path)
    if trace.meta.get("histogram_only"):
        raise UsageError(
            "this trace has histograms only, no waits to export",
            f"read {path}/histograms/*.parquet, or record again without --histogram-only",
        )
    selection = choice.selection(trace)
    file = file or output.named_after(path, _SUFFIX[target])
    with opened(file, force=force, text=target in ("folded", "json")) as out:
        written = _write(trace, target, out, selection, options)
    where = "standard output" if file == STDOUT else output.text(file)
    streams.say(f"{counted(written.waits, 'wait')}, {output.duration(written.wait_ns)} -> {where}")
    if not written.waits:
        streams.say(nothing(trace, selection))
    output.notes((*written.notes, *trace.notes), err=True)


def _refuse_without_meaning(target: str) -> None:
    options = given()
    for parameter in click.get_current_context().command.params:
        formats = _ONLY_FOR.get(parameter.name or "", (target,))
        if target not in formats and parameter.name in options:
            raise UsageError(
                f"{parameter.opts[0]} means nothing for {target}",
                f"leave it out, or give --to {' or '.join(formats)}",
            )


def _write(
    trace: Trace, target: str, out: BinaryIO, selection: Selection, options: dict[str, Any]
) -> Written:
    if target in _STACK_FORMATS:
        from sltrace.analysis.blame import BLAMED_KINDS

        selection = selection.with_kinds(BLAMED_KINDS)
    if target == "pprof":
        from sltrace.export.pprof import write_pprof

        return write_pprof(trace, out, selection, which=options["stack"])
    if target == "folded":
        from sltrace.export.folded import write_folded

        roots = [name.strip() for name in options["roots"].split(",") if name.strip()]
        return write_folded(
            trace, out, selection, which=options["stack"], weight=options["weight"], roots=roots
        )
    if target == "parquet":
        from sltrace.export.parquet import write_parquet

        return write_parquet(trace, out, selection)
    from sltrace.export.json import write_json

    return write_json(trace, out, selection)
