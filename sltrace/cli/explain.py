"""`sltrace explain`: wiring only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sltrace.cli import output
from sltrace.cli.files import FILE
from sltrace.cli.shared import json_option, trace_argument
from sltrace.cli.strips import LETTERS, strip
from sltrace.errors import UsageError
from sltrace.model import BLOCKED_KINDS
from sltrace.plural import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sltrace.analysis.spans import Span, SpanWaits
    from sltrace.analysis.timeline import Slowest, Timeline, Wait

_CAUSES = {
    "runq": "run queue",
    "quota": "quota",
    "goroutine": "goroutine queue",
    "gil": "GIL",
    "stw": "stopped world",
    "blocked": "blocked",
}
_KINDS = {
    "runq_wakeup": "run queue",
    "runq_preempt": "run queue, preempted",
    "throttled": "quota",
    "goroutine": "goroutine queue",
    "gil": "GIL",
    "loop": "event loop, all of it",
}
_MOST_LANES = 40


@click.command()
@trace_argument
@click.option("--trace-id", metavar="ID", help="Show everything this trace waited for.")
@click.option(
    "--spans",
    "file",
    type=FILE,
    metavar="FILE",
    help="Its spans, from OTLP/JSON, Tempo or Jaeger, to show with their waits.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Traces, or longest waits, to show.  [default: 20 and 100; all waits with --json]",
)
@json_option
def command(
    path: str, trace_id: str | None, file: str | None, top: int | None, as_json: bool
) -> None:
    """Why one request was slow: its trace as a timeline of threads and waits.

    Without --trace-id, the traces that lost most time are listed.
    """
    from sltrace.analysis.meta import clock_notes
    from sltrace.analysis.spans import explain_spans, read_spans, with_losses_of
    from sltrace.analysis.timeline import normal_id, slowest, timeline
    from sltrace.trace.reader import Trace

    trace = Trace.open(path)
    if trace_id is None:
        if file:
            raise UsageError("--spans needs --trace-id", "leave it out to list the slowest traces")
        found = slowest(trace, limit=top or 20)
        if as_json:
            output.print_json(found.to_json())
        else:
            _show_slowest(found, path)
        return
    spans: Sequence[Span] = read_spans(file) if file else ()
    seen = timeline(trace, normal_id(trace_id))
    explained = explain_spans(trace, seen, spans)
    seen = with_losses_of(trace, seen, explained)
    if spans:
        seen = replace(seen, notes=(*seen.notes, *clock_notes(trace, "spans")))
    ids = [s.span_id for s in spans if s.trace_id == seen.trace_id]
    beyond, nameless = len({*ids} - {""}) - len(explained), ids.count("")
    if as_json:
        of_spans = {
            "spans": [s.to_json() for s in explained],
            "spans_beyond": beyond,
            "spans_without_id": nameless,
        }
        output.print_json(seen.to_json() | of_spans)
        return
    _show(seen, top or 100)
    if file:
        click.echo()
        _show_spans(explained)
        if beyond:
            click.echo(f"note: the shortest {counted(beyond, 'span')} were left out")
        if nameless:
            click.echo(f"note: {counted(nameless, 'span')} without an id were left out")
    _show_losses(seen)


def _show_slowest(found: Slowest, path: str) -> None:
    if not found.traces:
        click.echo(
            f"no trace ids among {counted(found.untraced, 'wait')}: none of the recorded "
            "processes had any that sltrace can read"
        )
    else:
        rows = [
            [
                output.text(t.trace_id),
                output.duration(t.lost_ns),
                output.duration(t.blocked_ns),
                output.number(t.waits),
                output.number(t.lanes),
                f"{t.start_ns / 1e9:+.3f} s",
                output.duration(t.end_ns - t.start_ns),
            ]
            for t in found.traces
        ]
        headers = ["TRACE", "LOST", "BLOCKED", "WAITS", "LANES", "FROM", "LENGTH"]
        click.echo(output.table(headers, rows, names=1))
        if found.count > len(rows):
            click.echo(counted(found.count - len(rows), "more trace"))
        click.echo(f"\nnext: sltrace explain {click.format_filename(path)} --trace-id ID")
    output.notes(found.notes)
    click.echo(f"losses: {found.losses.sentence}")


def _show(seen: Timeline, top: int) -> None:
    length = seen.end_ns - seen.start_ns
    at = ""
    if seen.start_unix_ns:
        moment = datetime.fromtimestamp((seen.start_unix_ns + seen.start_ns) / 1e9, UTC)
        at = f" ({moment:%Y-%m-%d %H:%M:%S.%f} UTC)"
    click.echo(
        f"trace {seen.trace_id}: {output.duration(length)} from {seen.start_ns / 1e9:+.6f} s{at}"
    )
    parts = [f"{_CAUSES[c]} {output.duration(ns)}" for c, ns in seen.causes.items() if ns]
    rest = length - sum(seen.causes.values())
    click.echo(", ".join([*parts, f"running or unknown {output.duration(rest)}"]))
    click.echo()
    _show_strips(seen)
    click.echo()
    _show_waits(seen, top)


def _show_strips(seen: Timeline) -> None:
    lanes = seen.lanes
    by_lane: dict[str, list[Wait]] = {lane: [] for lane in lanes}
    for wait in seen.waits:
        by_lane[wait.lane].append(wait)
    names = [output.text(lane) for lane in lanes[:_MOST_LANES]]
    wide = min(30, max(map(output.width, names)))
    columns = max(20, min(output.terminal_width(), 120) - wide - 3)
    for name, lane in zip(names, lanes, strict=False):
        shown = output.shorten(name, wide)
        cells = strip(by_lane[lane], seen.start_ns, seen.end_ns, columns)
        click.echo(f"{shown}{' ' * (wide - output.width(shown))} |{cells}|")
    if len(lanes) > _MOST_LANES:
        click.echo(f"and {output.number(len(lanes) - _MOST_LANES)} more")
    legend = ", ".join(f"{letter} {_CAUSES[cause]}" for cause, letter in LETTERS.items())
    click.echo(f"{'':{wide}}  {legend}, . running or unknown")


def _show_waits(seen: Timeline, top: int) -> None:
    longest = sorted(seen.waits, key=lambda w: w.start_ns - w.end_ns)[:top]
    rows = [
        [
            output.text(w.lane),
            _KINDS.get(w.kind, _reasoned(w)),
            _because(w),
            f"+{(w.start_ns - seen.start_ns) / 1e6:,.3f} ms",
            output.duration(w.end_ns - w.start_ns),
        ]
        for w in sorted(longest, key=lambda w: (w.start_ns, w.end_ns))
    ]
    headers = ["WHO", "WAITED FOR", "BECAUSE OF", "AT", "TIME"]
    click.echo(output.table(headers, rows, names=3))
    if len(seen.waits) > len(rows):
        others = seen.waits_besides(longest)
        click.echo(
            f"and {output.number(others[0])} shorter ones, {output.duration(others[1])} together; "
            "--top shows more"
        )


def _reasoned(wait: Wait) -> str:
    """Its kind, and what for, as the runtime says: a world is stopped not only to collect."""
    kind = _CAUSES["blocked"] if wait.kind in BLOCKED_KINDS else _CAUSES.get(wait.kind, wait.kind)
    return output.text(f"{kind}: {wait.reason}" if wait.reason else kind)


def _because(wait: Wait) -> str:
    """The culprit, or who ended it."""
    ran = f" for {output.duration(wait.culprit_ns)}" if wait.culprit_tid and wait.culprit_ns else ""
    return f"{output.text(wait.because)}{ran}"


def _show_spans(spans: Sequence[SpanWaits]) -> None:
    if not spans:
        click.echo("the file has no span of this trace")
        return
    used = [c for c in _CAUSES if any(s.causes[c] for s in spans)]
    rows = [
        [
            "  " * min(s.depth, 20) + _span_name(s),
            output.duration(s.end_ns - s.start_ns),
            output.duration(s.running_ns),
            *(output.duration(s.causes[c]) if s.causes[c] else "" for c in used),
            output.number(s.waits),
        ]
        for s in spans
    ]
    headers = ["SPAN", "TIME", "RUNNING", *(_CAUSES[c].upper() for c in used), "WAITS"]
    click.echo(output.table(headers, rows, names=1))
    if any(s.cut for s in spans):
        click.echo(
            "* was under way before the recording, after it or in a gap of it: that part is in no "
            "column"
        )
    if any(s.unseen for s in spans):
        click.echo("? waits that may be of it were not seen whole: RUNNING may have their time")
    if any(s.elsewhere for s in spans):
        click.echo(
            "! its waits were at another time: its spans were timed by another clock, or the clock "
            "was set meanwhile. Its columns are of what was recorded then, not of it"
        )


def _span_name(found: SpanWaits) -> str:
    service = f"{output.text(found.span.service)}: " if found.span.service else ""
    kinds = {" *": found.cut, " ?": found.unseen, " !": found.elsewhere}
    marks = "".join(mark for mark, is_so in kinds.items() if is_so)
    return f"{service}{output.text(found.span.name)}{marks}"


def _show_losses(seen: Timeline) -> None:
    click.echo()
    if seen.beyond:
        click.echo(f"note: the last {output.number(seen.beyond)} waits were left out")
    output.notes(seen.notes)
    click.echo(f"losses: {seen.losses.sentence}")
