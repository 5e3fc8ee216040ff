"""`sltrace go`: wiring only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sltrace.cli import output
from sltrace.cli.durations import DURATION
from sltrace.cli.shared import json_option, trace_argument
from sltrace.export.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sltrace.analysis.golang.health import Window
    from sltrace.trace.reader import Trace

_NAMED = 5


@click.command()
@trace_argument
@click.option(
    "--window",
    type=DURATION,
    default="30s",
    show_default=True,
    help="Time that each line is about.",
)
@json_option
def command(path: str, window: int, as_json: bool) -> None:
    """Say what is wrong with the scheduling of Go processes in TRACE, with the evidence.

    If no finding is over its threshold, it says that nothing is wrong; if no Go process was looked
    into, it says why. Times are from the start of the recording.
    """
    from collections import Counter
    from dataclasses import asdict

    from sltrace.analysis.golang.findings import findings
    from sltrace.analysis.golang.health import unread, windows
    from sltrace.analysis.golang.programs import beyond
    from sltrace.analysis.losses import losses
    from sltrace.analysis.meta import clock_ns
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    targets = trace.sql(
        "SELECT * FROM targets WHERE runtime = 'go' ORDER BY pid, from_ns"
    ).to_pylist()
    _refuse_none(trace, targets)
    found, lines, lost = findings(trace), windows(trace, max(window, 1)), losses(trace)
    notes = [*trace.notes, *unread(trace), *beyond(trace)]
    own = next(iter(trace.sources("go")), {})
    if as_json:
        output.print_json(
            {
                "processes": targets,
                "windows": [asdict(w) for w in lines],
                "findings": [f.to_json() for f in found],
                "sampled": own.get("sampled"),
                "losses": lost.to_json(),
                "source": own,
                "notes": notes,
            }
        )
        return
    programs = Counter(target["pid"] for target in targets if target["level"] is not None)
    for target in targets:
        level = "not looked into" if target["level"] is None else f"level {target['level']}"
        why = f": {target['why']}" if target["why"] else ""
        when = _when(target, clock_ns(trace, "start_ns")) if programs[target["pid"]] > 1 else ""
        click.echo(
            f"process {target['pid']}  {output.text(target['exe'])}  "
            f"{output.text(target['version'])}  {level}{when}{printable(why)}"
        )
    click.echo()
    if lines:
        _show(lines)
        click.echo()
    for finding in found:
        span = f"{output.duration(finding.start_ns)} to {output.duration(finding.end_ns)}"
        click.echo(printable(f"{finding.name.label}: {finding.sentence}"))
        click.echo(f"  process {finding.pid}, {span}; threshold: {finding.threshold}")
    if not lines:
        click.echo("nothing was read, so what is wrong is not known")
    elif not found:
        click.echo("nothing is beyond its threshold")
    click.echo()
    output.notes(notes)
    click.echo(f"losses: {lost.sentence}")


def _when(target: dict[str, Any], start_ns: int) -> str:
    """From when to when it was looked into."""
    since, until = target["from_ns"], target["until_ns"]
    begin = output.duration(max((since or 0) - start_ns, 0))
    return (
        f", from {begin} on"
        if until is None
        else f", {begin} to {output.duration(max(until - start_ns, 0))}"
    )


def _refuse_none(trace: Trace, targets: list[dict[str, Any]]) -> None:
    """Raises UsageError where no process was looked into, with why none of them was."""
    from sltrace.analysis.looked import why_none
    from sltrace.errors import UsageError

    if not targets:
        reason, hint = why_none(trace, "go")
        none = f"{trace.path} has no Go process"
        raise UsageError(f"{none}: {reason}" if reason else none, hint)
    if any(target["level"] is not None for target in targets):
        return
    why = [f"{t['pid']} ({t['exe']}), {t['why'] or 'it is not told why'}" for t in targets[:_NAMED]]
    more = [f"and {len(targets) - _NAMED:,} more"] if len(targets) > _NAMED else []
    said = output.text("; ".join(why + more))
    raise UsageError(
        f"{trace.path} has no Go process that was looked into: {said}",
        "sltrace diagnose tells what their threads waited for",
    )


def _show(lines: Sequence[Window]) -> None:
    headers = [
        "PROCESS",
        "FROM",
        "P BUSY",
        "QUEUED/P",
        "MEAN WAIT",
        "P99 WAIT",
        "WAITS",
        "LOOKED",
        "SPINNING",
    ]
    click.echo(output.table(headers, [_line(w) for w in lines], names=1))


def _line(w: Window) -> list[str]:
    return [
        str(w.pid),
        output.duration(w.start_ns),
        "-" if w.p_utilisation is None else f"{w.p_utilisation:.0%}",
        "-" if w.runnable_per_p is None else f"{w.runnable_per_p:.1f}",
        "-" if w.mean_wait_ns is None else output.duration(round(w.mean_wait_ns)),
        "-" if w.p99_wait_ns is None else output.duration(w.p99_wait_ns),
        "-" if w.looked is None and not w.waits else output.number(w.waits),
        "-" if w.looked is None else f"{w.looked:.0%}",
        "-" if w.spinning is None else f"{w.spinning:.0%}",
    ]
