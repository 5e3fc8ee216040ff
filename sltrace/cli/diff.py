"""`sltrace diff`: wiring only."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sltrace.cli import output
from sltrace.cli.completing import conditions, dimensions
from sltrace.cli.durations import DURATION
from sltrace.cli.files import FILE
from sltrace.cli.selecting import Choice, nothing, selection_options, values_of
from sltrace.cli.shared import force_option, json_option, pprof_option
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sltrace.analysis.diff import Change, Diff, Groups
    from sltrace.analysis.selection import Selection
    from sltrace.analysis.sides import Side
    from sltrace.trace.reader import Trace

_WIDEST, _NARROWEST = 28, 10
"""Columns of a heading that says what a side is: at most, and as wide as its figures are anyway."""
_OTHERS = 60
"""Columns that the rest of a table takes."""


@click.command()
@click.argument("path_a", metavar="A", type=FILE)
@click.argument("path_b", metavar="[B]", required=False, type=FILE)
@click.option(
    "--at", type=DURATION, help="Of one trace: waits that ended before this, against the rest."
)
@click.option(
    "--bucket",
    metavar="EXPR",
    help="Of one trace: traces outside a bucket against those in it: 'hash(trace_id) % 100 < 15'.",
)
@click.option(
    "--a",
    "only_a",
    shell_complete=conditions,
    multiple=True,
    metavar="DIM=VALUE",
    help="Side A has only waits with this value; as --only.",
)
@click.option(
    "--b",
    "only_b",
    shell_complete=conditions,
    multiple=True,
    metavar="DIM=VALUE",
    help="The same for side B.",
)
@click.option(
    "--by",
    default="kind,cgroup,comm",
    shell_complete=dimensions,
    show_default=True,
    metavar="DIM[,DIM...]",
    help="Dimensions whose values are compared, each by itself.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each."
)
@click.option(
    "--folded",
    type=FILE,
    metavar="FILE",
    help="Also write stacks with both sides' ns, for flamegraph.pl.",
)
@click.option(
    "-o", "--output", "page", type=FILE, metavar="FILE", help="Also write an HTML page of it."
)
@pprof_option
@force_option
@json_option
@selection_options
def command(
    path_a: str,
    path_b: str | None,
    by: str,
    top: int,
    folded: str | None,
    page: str | None,
    profiles: tuple[str, ...],
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """What is slower in trace B than in A, or in one part of A than in another.

    Give two traces, or one with --at, --bucket, or --a and --b. Differences are B minus A, with a
    95 % confidence interval: a change whose interval holds zero may be chance.
    """
    from sltrace.analysis.diff import diff
    from sltrace.export.sink import refuse_existing

    if [folded, page, "-" if as_json else ""].count("-") > 1:
        raise UsageError("several things would go to standard output", "give one of them a FILE")
    if profiles and not page:
        raise UsageError("--pprof is for the page of a comparison", "add -o FILE.html")
    for file in (folded, page):
        refuse_existing(file or "-", force=force)
    sides = _sides(path_a, path_b, **choices)
    names = [name.strip() for name in by.split(",") if name.strip()]
    result = diff(sides, names, limit=top)
    if folded:
        _write_folded(sides, folded, force=force)
    if page:
        _write_page(result, profiles, page, force=force)
    if as_json:
        output.print_json(result.to_json())
    elif "-" not in (folded, page):
        _show(result)


def _sides(
    path_a: str,
    path_b: str | None,
    at: int | None,
    bucket: str | None,
    only_a: tuple[str, ...],
    only_b: tuple[str, ...],
    choice: Choice,
) -> tuple[Side, Side]:
    from sltrace.analysis.bucket import parse_bucket
    from sltrace.analysis.sides import before_and_after, in_bucket, two_traces
    from sltrace.trace.reader import Trace

    ways = [w for w, given in _ways(path_b, at, bucket, only_a + only_b).items() if given]
    if len(ways) != 1 and ways != ["B", "--a and --b"]:
        raise UsageError(
            "give what to compare in one way" if ways else "there is nothing to compare A with",
            "give a trace B, --at TIME, --bucket EXPR, or --a and --b",
        )
    a = Trace.open(path_a)
    if at is not None:
        if choice.start is not None or choice.end is not None:
            raise UsageError("--at with --after or --before", "leave one of them out")
        return before_and_after(a, at, choice.selection(a))
    if bucket is not None:
        return in_bucket(a, parse_bucket(bucket), choice.selection(a))
    b = Trace.open(path_b) if path_b else a
    return two_traces(
        a,
        b,
        _narrowed(a, choice, only_a),
        _narrowed(b, choice, only_b),
        _names((path_a, path_b), (only_a, only_b)),
    )


def _names(paths: tuple[str, str | None], only: tuple[tuple[str, ...], ...]) -> tuple[str, str]:
    """What the sides are, as it was typed: a trace, the waits of it, or both."""
    files: tuple[str, str] = ("", "")
    if paths[1]:
        files = Path(paths[0]).name, Path(paths[1]).name
        if files[0] == files[1]:
            files = paths[0], paths[1]
    a, b = (" ".join(filter(None, side)) for side in zip(files, map(" ".join, only), strict=True))
    return a or "all waits", b or "all waits"


def _ways(
    path_b: str | None, at: int | None, bucket: str | None, only: tuple[str, ...]
) -> dict[str, bool]:
    return {
        "B": path_b is not None,
        "--at": at is not None,
        "--bucket": bucket is not None,
        "--a and --b": bool(only),
    }


def _narrowed(trace: Trace, choice: Choice, only: tuple[str, ...]) -> Selection:
    selection, own = choice.selection(trace), values_of(only, trace)
    if twice := sorted(selection.values.keys() & own):
        raise UsageError(
            f"--only {twice[0]}=... is for both sides, and --a or --b has another for one",
            "leave one of them out",
        )
    return replace(selection, values={**selection.values, **own})


def _write_folded(sides: tuple[Side, Side], file: str, *, force: bool) -> None:
    from sltrace.analysis.blame import BLAMED_KINDS
    from sltrace.export.folded import write_folded_diff
    from sltrace.export.sink import output as opened

    a, b = (replace(s, selection=s.selection.with_kinds(BLAMED_KINDS)) for s in sides)
    with opened(file, force=force, text=True) as out:
        write_folded_diff(out, (a, b))


def _write_page(result: Diff, profiles: tuple[str, ...], file: str, *, force: bool) -> None:
    from heatmaps.comparison import build_comparison
    from sltrace.analysis.sideprofiles import apart, overlaps, running
    from sltrace.profiles.stored import read_profiles, stored_profiles

    more = [p for where in profiles for p in read_profiles(where)]
    sides = (result.a, result.b)
    ran = None
    if apart(sides):
        (own_a, notes_a), (own_b, notes_b) = (stored_profiles(side.trace) for side in sides)
        ran = running(result.a, own_a, more), running(result.b, own_b, more)
        notes = [*notes_a, *(n for n in notes_b if n not in notes_a)]
        notes += [
            f"{p.where} was left out: it does not say that it was taken in the time of a side"
            for p in more
            if not any(overlaps(side, p) for side in sides)
        ]
        output.notes(notes, err=True)
    elif profiles:
        raise UsageError(
            "both sides are of the same time: profiles do not tell them apart",
            "compare two traces, or use --at",
        )
    output.write_page(file, build_comparison(result, ran), "the difference", force=force)


def _show(result: Diff) -> None:
    for label, side in (("A", result.a), ("B", result.b)):
        size = f"{side.recorded_ns / 1e9:.1f} s recorded"
        if side.per == "trace":
            size += f", {output.number(side.traces)} {'trace' if side.traces == 1 else 'traces'}"
        click.echo(f"{label}: {output.text(side.name)} ({size})")
    if not result.classes:
        click.echo(nothing(result.a.trace, result.a.selection, result.b.selection))
    waits = [c for changes in result.classes.values() for c in changes if c.name == "waits"]
    if waits and not any(c.a for c in waits):
        click.echo(f"A has {nothing(result.a.trace, result.a.selection)}")
    if waits and not any(c.b for c in waits):
        click.echo(f"B has {nothing(result.b.trace, result.b.selection)}")
    heads = [_heading("A", result.a), _heading("B", result.b)]
    for name, changes in result.classes.items():
        rows = [_row(_LABELS[str(c.name)].format(per=result.per), c) for c in changes]
        click.echo()
        title = output.title(name)
        headers = [title, *heads, "B - A", "95 % CONFIDENCE", ""]
        click.echo(output.table(headers, rows, names=1))
    for groups in result.groups:
        if groups.changes:
            click.echo()
            _show_groups(groups, result.per, heads)
    click.echo()
    output.notes(result.notes)
    for label, lost in zip("AB", result.losses, strict=True):
        click.echo(f"losses of {label}: {lost.sentence}")


_LABELS = {
    "waits": "waits per {per}",
    "total_ns": "waited per {per}",
    "p50_ns": "p50",
    "p90_ns": "p90",
    "p99_ns": "p99",
    "p999_ns": "p99.9",
    "max_ns": "max",
}


def _heading(label: str, side: Side) -> str:
    """What a side is, in a column whose figures are narrow."""
    columns = (output.terminal_width() - _OTHERS) // 2
    columns = min(max(columns, _NARROWEST), _WIDEST)
    return output.shorten(f"{label}: {output.text(side.name)}", columns)


def _show_groups(groups: Groups, per: str, heads: Sequence[str]) -> None:
    rows = [_row(output.text(c.name), c, times=True) for c in groups.changes]
    if groups.rest:
        rows.append(_row(output.all_others(groups.rest_groups), groups.rest, times=True))
    headers = [f"{groups.by}, waited per {per}", *heads, "B - A", "95 % CONFIDENCE", ""]
    click.echo(output.table(headers, rows, names=1))


def _row(name: str, change: Change, *, times: bool = False) -> list[str]:
    amount = _time if times or change.name != "waits" else _count
    signed = partial(amount, signed=True)
    low, high = change.low, change.high
    between = "" if low is None or high is None else f"{signed(low)} .. {signed(high)}"
    verdict = ""
    if change.certain and low is not None:
        more, less = ("more", "fewer") if amount is _count else ("slower", "faster")
        verdict = more if low > 0 else less
    figures = [amount(change.a), amount(change.b), signed(change.difference)]
    return [name, *figures, between, verdict]


def _time(ns: float | None, *, signed: bool = False) -> str:
    if ns is None:
        return "-"
    shown = output.duration(round(ns))
    return f"+{shown}" if signed and round(ns) > 0 else shown


def _count(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    shown = output.rate(value)
    return f"+{shown}" if signed and value > 0 else shown
