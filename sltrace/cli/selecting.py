"""Options that choose waits, the same for every command that reads a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from sltrace.analysis.looked import looked_for, not_looked_for
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.selection import DIMENSIONS, Dimension, Selection, Value, tables
from sltrace.cli import output
from sltrace.cli.completing import conditions
from sltrace.cli.durations import DURATION
from sltrace.durations import format_duration
from sltrace.errors import UsageError
from sltrace.model import Kind

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_Command = Callable[..., Any]
_COUNTLESS = ("trace_id", "span_id")
"""Dimensions that have too many values, and too strange ones, to list some."""
_SHOWN = 8


@dataclass(frozen=True)
class Choice:
    """What the options say; times from the start of the recording, in ns."""

    start: int | None
    end: int | None
    min_wait: int | None
    max_wait: int | None
    only: tuple[str, ...]

    def selection(self, trace: Trace) -> Selection:
        """As a selection of this trace's waits.

        Raises:
            UsageError: An unknown dimension, a value it cannot have, or bounds that no wait meets.
        """
        origin = clock_ns(trace, "start_ns")
        self._refuse_empty(trace)
        return Selection(
            start_ns=None if self.start is None else origin + self.start,
            end_ns=None if self.end is None else origin + self.end,
            min_wait_ns=self.min_wait,
            max_wait_ns=self.max_wait,
            values=values_of(self.only, trace),
        )

    def _refuse_empty(self, trace: Trace) -> None:
        """Raises UsageError where the bounds leave nothing."""
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise UsageError(
                f"nothing ended after {format_duration(self.start)} and before "
                f"{format_duration(self.end)}",
                "the time to begin at must be before that to end at",
            )
        low, high = self.min_wait, self.max_wait
        if low is not None and high is not None and low >= high:
            raise UsageError(
                f"no wait is at least {format_duration(low)} and under {format_duration(high)}",
                "the shortest must be less than the longest",
            )
        length = clock_ns(trace, "end_ns") - clock_ns(trace, "start_ns")
        # While it is recorded its end is not known.
        if not trace.meta.get("finished") or length <= 0:
            return
        hint = f"the recording is {format_duration(length)} long: give times within that"
        if self.start is not None and self.start >= length:
            raise UsageError(f"nothing was recorded after {format_duration(self.start)}", hint)
        if self.end == 0:
            raise UsageError("nothing was recorded before 0 ns", hint)


def selection_options(function: _Command) -> _Command:
    """Adds --after, --before, --min-wait, --max-wait and --only, handed over as `choice`."""

    @click.option(
        "--after",
        "start",
        type=DURATION,
        help="Waits that ended this long after the start, or later: 2s.",
    )
    @click.option("--before", "end", type=DURATION, help="Waits that ended before that: 2.5s.")
    @click.option("--min-wait", type=DURATION, help="Waits at least this long: 100us.")
    @click.option("--max-wait", type=DURATION, help="Waits shorter than this.")
    @click.option(
        "--only",
        shell_complete=conditions,
        multiple=True,
        metavar="DIM=VALUE",
        help="Waits with this value: kind=throttled, cgroup=/a, cpu=3 ... Repeat for more values "
        "of one dimension, or for more dimensions. DIM= is for waits where it is unknown.",
    )
    @wraps(function)
    def with_choice(
        start: int | None,
        end: int | None,
        min_wait: int | None,
        max_wait: int | None,
        only: tuple[str, ...],
        **others: Any,
    ) -> Any:
        return function(choice=Choice(start, end, min_wait, max_wait, only), **others)

    return with_choice


def values_of(only: tuple[str, ...], trace: Trace) -> dict[str, tuple[Value, ...]]:
    """`DIM=VALUE` terms as a selection's values.

    Raises:
        UsageError: A term is not of that form, or of a kind that there is not.
    """
    values: dict[str, tuple[Value, ...]] = {}
    for term in only:
        name, equals, value = term.partition("=")
        if not equals or name not in DIMENSIONS:
            raise UsageError(
                f"--only {term} is not DIM=VALUE", f"DIM is one of {', '.join(DIMENSIONS)}"
            )
        if name == "kind":
            _refuse_strange(value, trace)
        values[name] = (*values.get(name, ()), value or None)
    return values


def _refuse_strange(kind: str, trace: Trace) -> None:
    known = [k.label for k in Kind]
    if not kind:
        raise UsageError("each wait has a kind", f"choose from {', '.join(known)}")
    # A newer sltrace may have recorded kinds that this one does not know.
    if kind not in known and kind not in _occurring(trace, DIMENSIONS["kind"]):
        raise UsageError(f"there is no kind {kind!r}", f"choose from {', '.join(known)}")


def nothing(trace: Trace, *selections: Selection) -> str:
    """That there are no waits, and of values that do not occur which ones do, for people."""
    said = []
    for name in dict.fromkeys(n for s in selections for n in s.values if n not in _COUNTLESS):
        wanted = [v for s in selections for v in s.values.get(name, ())]
        occurring = _occurring(trace, DIMENSIONS[name])
        if occurring and not {str(v) for v in wanted} & {str(v) for v in occurring}:
            shown = ", ".join(output.text(v) for v in occurring[:_SHOWN])
            more = f" and {len(occurring) - _SHOWN:,} more" if len(occurring) > _SHOWN else ""
            said.append(f"{name} is {shown}{more}")
    kinds = dict.fromkeys(str(k) for s in selections for k in s.kinds or ())
    said += dict.fromkeys(not_looked_for((k,)) for k in kinds if not looked_for(trace, k))
    return f"no waits: {'; '.join(said) or 'the trace has none, or none that match'}"


def _occurring(trace: Trace, dimension: Dimension) -> list[Value]:
    """The values of a dimension, most waits first."""
    table, count = "waits", "count(*)"
    if trace.meta.get("histogram_only"):
        if not dimension.in_histograms:
            return []
        table, count = "histogram_sums", "sum(count)"
    rows = trace.sql(
        f"SELECT {dimension.sql} AS value FROM {tables((dimension,), table)} "
        f"GROUP BY value ORDER BY {count} DESC, value"
    )
    found: list[Value] = rows["value"].to_pylist()
    return found
