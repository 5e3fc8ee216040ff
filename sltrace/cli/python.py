"""`sltrace python`: wiring only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sltrace.cli import output
from sltrace.cli.shared import json_option, trace_argument
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.analysis.python.findings import Finding
    from sltrace.analysis.python.report import PythonReport
    from sltrace.trace.reader import Trace

_NAMED = 3
"""Processes of which it is said why they were not looked into."""


@click.command()
@trace_argument
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Rows of each table, and processes, to show; 20 unless --json.",
)
@json_option
def command(path: str, top: int | None, as_json: bool) -> None:
    """Who held the GIL and who waited for it, event loops, locks and collections, in TRACE.

    Findings come first: what is over its threshold, and where in the code.
    """
    from sltrace.analysis.python.report import python_report
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    _refuse_none(path, trace)
    if as_json:
        output.print_json(python_report(trace, top).to_json())
        return
    top = top or 20
    _show(python_report(trace, top), top)


def _refuse_none(path: str, trace: Trace) -> None:
    """Raises UsageError where no process was looked into, with why none of those asked for was."""
    from sltrace.analysis.looked import why_none
    from sltrace.analysis.python.report import refused
    from sltrace.analysis.python.tables import processes
    from sltrace.errors import UsageError

    asked = processes(trace)
    if any(process.level is not None for process in asked):
        return
    why = [f"{process.pid}, {process.why}" for process in asked[:_NAMED]]
    said = "; ".join(filter(None, [refused(trace), *why]))
    hint = "sltrace diagnose tells what their threads waited for"
    if not said:
        said, hint = why_none(trace, "python")
    none = f"{path} has no Python process that was looked into"
    raise UsageError(f"{none}: {output.text(said)}" if said else none, hint)


def _show(report: PythonReport, top: int) -> None:
    for process in report.processes[:top]:
        version = f" Python {output.text(process.version)}" if process.version else ""
        name = f"{process.pid}:{version}"
        click.echo(f"{name} {output.text(process.why)}" if process.why else name)
    if (beyond := len(report.processes) - top) > 0:
        click.echo(f"and {beyond:,} more")
    for finding in report.findings:
        click.echo()
        click.echo(f"{finding.name.label}: {output.text(finding.sentence)}")
        click.echo(f"  {_measured(finding)}; cure: {finding.advice}")
    if not report.findings:
        click.echo("no findings: nothing is over its threshold")
    _gil(report)
    _loops(report)
    _locks(report)
    click.echo()
    for collector in report.collectors:
        click.echo(
            f"garbage collector of {collector.pid}: {counted(collector.collections, 'time')}, "
            f"{output.duration(collector.total_ns)} in all, longest "
            f"{output.duration(collector.longest_ns)}"
        )
    output.notes(report.notes)
    click.echo(f"losses: {report.losses.sentence}")


def _measured(finding: Finding) -> str:
    """The figure and its threshold; a time has its own units."""
    if finding.is_time:
        value, threshold = map(output.duration, (int(finding.value), int(finding.threshold)))
        return f"{value} {finding.unit.removeprefix('ns ')}, threshold {threshold}"
    return (
        f"{output.figure(finding.value)} {finding.unit}, "
        f"threshold {output.figure(finding.threshold)}"
    )


def _gil(report: PythonReport) -> None:
    rows = [
        [
            f"{output.text(t.comm)} ({t.tid})",
            output.text(t.holding),
            output.duration(t.held_ns),
            output.number(t.waits),
            output.duration(t.waited_ns),
            output.duration(t.runq_ns),
            output.duration(t.p99_ns),
            output.duration(t.longest_ns),
        ]
        for t in report.gil
    ]
    if rows:
        headers = ["GIL: THREAD", "HOLDS IT IN", "OTHERS WAITED", "WAITS", "WAITED", "NO CPU",
                   "P99", "MAX"]  # fmt: skip
        click.echo()
        click.echo(output.table(headers, rows, names=2))
    if report.gil_traces:
        rows = [
            [output.text(t.trace_id), output.number(t.waits), output.duration(t.waited_ns)]
            for t in report.gil_traces
        ]
        click.echo()
        click.echo(output.table(["GIL: TRACE", "WAITS", "WAITED"], rows, names=1))


def _loops(report: PythonReport) -> None:
    rows = [
        [
            f"{output.text(loop.comm)} ({loop.tid})",
            output.text(loop.place),
            output.number(loop.iterations),
            *map(output.duration, (loop.p50_ns, loop.p99_ns, loop.longest_ns)),
            *map(output.duration, (loop.gil_ns, loop.runq_ns, loop.blocked_ns)),
        ]
        for loop in report.loops
    ]
    if rows:
        headers = ["LOOP: THREAD", "SLOW IN", "ITERATIONS", "P50", "P99", "MAX", "GIL", "NO CPU",
                   "BLOCKED"]  # fmt: skip
        click.echo()
        click.echo(output.table(headers, rows, names=2))
        if not all(loop.exact for loop in report.loops):
            click.echo(
                "note: iterations are upper bounds: those that found something to do at once are "
                "taken together; --python-loops times each"
            )


def _locks(report: PythonReport) -> None:
    rows = [
        [
            output.text(f"{lock.place}, {lock.through}" if lock.through else lock.place),
            str(lock.pid),
            output.number(lock.threads),
            output.number(lock.waits),
            output.duration(lock.waited_ns),
            output.duration(lock.longest_ns),
        ]
        for lock in report.locks
        if not lock.idle
    ]
    if rows:
        click.echo()
        headers = ["LOCK: PLACE", "PID", "THREADS", "WAITS", "WAITED", "MAX"]
        click.echo(output.table(headers, rows, names=1))
