"""`sltrace check`: wiring only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sltrace.cli import output
from sltrace.cli.files import FILE
from sltrace.cli.shared import force_option, json_option, trace_argument
from sltrace.plural import percent_digits

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from sltrace.analysis.bounds import Bounds
    from sltrace.analysis.check import Check, Outcome
    from sltrace.analysis.rules import Unit

EXIT_CODES = {"pass": 0, "fail": 7, "unknown": 8}
_MARKS = {
    "pass": ("pass", "green"),
    "fail": ("FAIL", "red"),
    "unknown": ("unknown", "yellow"),
}
_MOST_RULES = 1000


@click.command()
@trace_argument
@click.argument("rules", metavar="RULE...", nargs=-1, required=True)
@click.option(
    "--baseline",
    type=FILE,
    metavar="TRACE",
    help="Trace that rules with `baseline` compare with.",
)
@click.option("--junit", type=FILE, metavar="FILE", help="Also write the results as JUnit XML.")
@force_option
@json_option
def command(
    path: str,
    rules: tuple[str, ...],
    baseline: str | None,
    junit: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Test TRACE against rules such as 'p99(runq) < 5ms'.

    \b
      'p99.9(runq where cgroup=/web and cpu=3) <= 20ms'
      'share(throttled) < 1%'             of the time, any thread was throttled
      'p99(runq) < 1.2 * baseline + 1ms'  with --baseline

    Figures: p50, p99.9 ..., max, mean, total, count, rate, share; of runq or of one kind. Exit
    code 7 if a rule failed, 8 if none failed but what the recording lost leaves one undecided.
    """
    from sltrace.analysis.check import check
    from sltrace.analysis.rules import parse_rule
    from sltrace.errors import UsageError
    from sltrace.export.sink import refuse_existing
    from sltrace.trace.reader import Trace

    if len(rules) > _MOST_RULES:
        raise UsageError(f"{len(rules):,} rules are too many", f"at most {_MOST_RULES:,}")
    if as_json and junit == "-":
        raise UsageError(
            "--json and --junit - both write to standard output", "give --junit a file"
        )
    if junit is not None:
        refuse_existing(junit, force=force)
    parsed = [parse_rule(rule) for rule in rules]
    result = check(Trace.open(path), parsed, Trace.open(baseline) if baseline else None)
    if junit is not None:
        from sltrace.export.junit import write_junit
        from sltrace.export.sink import output as opened

        with opened(junit, force=force, text=True) as out:
            write_junit(out, path, [(o.rule.text, o.verdict, _said(o)) for o in result.outcomes])
    if as_json:
        output.print_json(result.to_json())
    elif junit != "-":
        _show(result)
    sys.exit(EXIT_CODES[result.verdict])


def _show(result: Check) -> None:
    wide = max(output.width(output.text(o.rule.text)) for o in result.outcomes)
    for outcome in result.outcomes:
        mark, colour = _MARKS[outcome.verdict]
        rule = output.text(outcome.rule.text)
        padding = " " * (wide - output.width(rule))
        said = output.text(_said(outcome))
        click.echo(f"{click.style(f'{mark:<8}', fg=colour)} {rule}{padding}  {said}")
    output.notes(result.notes)
    click.echo(f"losses: {result.losses.sentence}")
    if result.baseline_losses:
        click.echo(f"losses of the baseline: {result.baseline_losses.sentence}")


def _said(outcome: Outcome) -> str:
    """The figure, the baseline's, and why it is not exact."""
    unit = outcome.rule.unit
    said = _between(outcome.value, unit)
    if outcome.verdict == "fail" and said == _between(outcome.limit, unit):
        # By less than is shown.
        said = _between(outcome.value, unit, _exactly)
    if outcome.baseline:
        said += f" (baseline {_between(outcome.baseline, unit)})"
    doubt = outcome.value.why or (outcome.limit.why and f"baseline: {outcome.limit.why}")
    return f"{said}: {doubt}" if doubt else said


def _amount(value: Decimal, unit: Unit) -> str:
    match unit:
        case "ns":
            return output.duration(round(value))
        case "count":
            return output.number(round(value))
        case "per_second":
            return f"{output.rate(float(value))}/s"
        case "share":
            return f"{value:.{percent_digits(float(value)) if value else 2}%}"


def _exactly(value: Decimal, unit: Unit) -> str:
    match unit:
        case "ns":
            return f"{round(value):,} ns"
        case "count":
            return f"{value:,.7g}"
        case "per_second":
            return f"{value:,.7g}/s"
        case "share":
            return f"{100 * value:.7g}%"


def _between(value: Bounds, unit: Unit, amount: Callable[[Decimal, Unit], str] = _amount) -> str:
    low = amount(value.low, unit)
    if value.high is None:
        return f"{low} or more" if value.low else "not known"
    high = amount(value.high, unit)
    return low if low == high else f"{low} - {high}"
