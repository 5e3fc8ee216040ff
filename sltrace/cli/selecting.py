"""Options that choose waits, the same for every command that reads a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sltrace.analysis.meta import clock_ns
from sltrace.analysis.selection import DIMENSIONS, Selection, Value
from sltrace.cli.completing import dimensions
from sltrace.cli.durations import DURATION
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_F = TypeVar("_F", bound=Callable[..., Any])


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
            UsageError: An unknown dimension, or a value it cannot have.
        """
        origin = clock_ns(trace, "start_ns")
        return Selection(
            start_ns=None if self.start is None else origin + self.start,
            end_ns=None if self.end is None else origin + self.end,
            min_wait_ns=self.min_wait,
            max_wait_ns=self.max_wait,
            values=values_of(self.only),
        )


def selection_options(function: _F) -> _F:
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
        shell_complete=dimensions,
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

    return with_choice  # type: ignore[return-value]


def values_of(only: tuple[str, ...]) -> dict[str, tuple[Value, ...]]:
    """`DIM=VALUE` terms as a selection's values.

    Raises:
        UsageError: A term is not of that form.
    """
    values: dict[str, tuple[Value, ...]] = {}
    for term in only:
        name, equals, value = term.partition("=")
        if not equals or name not in DIMENSIONS:
            raise UsageError(
                f"--only {term} is not DIM=VALUE", f"DIM is one of {', '.join(DIMENSIONS)}"
            )
        values[name] = (*values.get(name, ()), value or None)
    return values
