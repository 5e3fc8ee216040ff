"""The rules of `sltrace check`: `p99(runq where cgroup=/web) < 5ms`.

    RULE   = FIGURE "(" WHAT [ "where" DIM "=" VALUE { "and" DIM "=" VALUE } ] ")" OP LIMIT
    FIGURE = "p" PERCENT | "max" | "mean" | "total" | "count" | "rate" | "share"
    WHAT   = "runq" | a kind of wait
    OP     = "<" | "<=" | ">" | ">="
    LIMIT  = AMOUNT | [ NUMBER "*" ] "baseline" [ "+" AMOUNT ]

An AMOUNT has the unit of its figure: a duration, a number, `N/s` or `N%`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NoReturn

from sltrace.analysis.selection import DIMENSIONS, Selection
from sltrace.durations import parse_duration
from sltrace.errors import UsageError
from sltrace.model import RUNQ, RUNQ_KINDS, Kind

Unit = Literal["ns", "count", "per_second", "share"]

WHATS: Mapping[str, tuple[str, ...]] = {RUNQ: RUNQ_KINDS} | {k.label: (k.label,) for k in Kind}
"""What a rule can be about: run-queue latency, or one kind."""

UNITS: Mapping[str, Unit] = {
    "max": "ns",
    "mean": "ns",
    "total": "ns",
    "count": "count",
    "rate": "per_second",
    "share": "share",
}
"""Figures but percentiles, which are ns too."""


_EXAMPLE = "write it as 'p99(runq) < 5ms' or 'share(throttled where cgroup=/web) <= 1%'"
_MAX_RULE = 4096
_RULE = re.compile(
    r"\s*(?P<figure>[A-Za-z]\w*(?:\.\d+)?)\s*\(\s*(?P<what>\w+)(?P<where>\s+where\s+.*)?\s*\)"
    r"\s*(?P<operator><=|>=|<|>)\s*(?P<limit>[^()<>=]+?)\s*",
    re.DOTALL,
)
_CONDITION = re.compile(r"""\s*(\w+)\s*=\s*("[^"]*"|'[^']*'|[^\s"']+)\s*(and\b\s*|$)""")
_BASELINE = re.compile(
    r"(?:(?P<factor>\d{1,9}(?:\.\d{1,9})?)\s*\*\s*)?baseline(?:\s*\+\s*(?P<more>.+))?"
)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: As it was written, spaces evened out.
        figure: pNN, max, mean, total, count, rate or share.
        quantile: Of a percentile, above 0 and below 1; else None.
        what: A key of WHATS.
        where: The waits it is about, among those of the kind.
        operator: Between figure and limit: <, <=, > or >=.
        factor: Of the baseline's figure; 0 where the limit is an amount.
        amount: Added to that; ns, a count, a number per second or a share.
    """

    text: str
    figure: str
    quantile: Decimal | None
    what: str
    where: Selection = field(repr=False)
    operator: str
    factor: Decimal
    amount: Decimal

    @property
    def unit(self) -> Unit:
        """Unit of the figure and of the limit."""
        return UNITS.get(self.figure, "ns")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of wait it is about."""
        return WHATS[self.what]

    @property
    def selection(self) -> Selection:
        """The waits it is about."""
        return self.where.with_kinds(self.kinds)


def parse_rule(text: str) -> Rule:
    """Reads a rule.

    Raises:
        UsageError: It is none; says what is wrong with it.
    """
    if len(text) > _MAX_RULE:
        raise UsageError(f"a rule is {len(text):,} characters long", f"at most {_MAX_RULE:,}")
    match = _RULE.fullmatch(text)
    if not match:
        _refuse(text, "is not a rule", _EXAMPLE)
    figure, what = match["figure"].lower(), match["what"].lower()
    quantile = _quantile(text, figure)
    if what not in WHATS:
        _refuse(text, f"is about {what!r}", f"choose from {', '.join(WHATS)}")
    unit = UNITS.get(figure, "ns")
    factor, amount = _limit(text, match["limit"], unit)
    return Rule(
        text=" ".join(text.split()),
        figure=figure,
        quantile=quantile,
        what=what,
        where=_where(text, match["where"]),
        operator=match["operator"],
        factor=factor,
        amount=amount,
    )


def _quantile(text: str, figure: str) -> Decimal | None:
    if figure in UNITS:
        return None
    match = re.fullmatch(r"p(\d{1,2}(?:\.\d{1,6})?)", figure)
    quantile = Decimal(match[1]) / 100 if match else Decimal(0)
    if not quantile:
        _refuse(
            text,
            f"has no figure {figure!r}",
            f"choose from p50, p99, p99.9 and the like, {', '.join(UNITS)}",
        )
    return quantile


def _where(text: str, clause: str | None) -> Selection:
    values: dict[str, tuple[str | None, ...]] = {}
    rest = (clause or "").strip().removeprefix("where")
    while rest.strip():
        match = _CONDITION.match(rest)
        if not match:
            _refuse(text, "has a `where` that cannot be read", _EXAMPLE)
        name, value, joint = match[1], match[2], match[3]
        if name not in DIMENSIONS or name == "kind":
            names = ", ".join(d for d in DIMENSIONS if d != "kind")
            _refuse(text, f"cannot select by {name!r}", f"choose from {names}")
        if name in values:
            _refuse(text, f"names {name} twice", "name each dimension once")
        quoted = value[0] in "\"'"
        values[name] = ((value[1:-1] if quoted else value) or None,)
        rest = rest[match.end() :]
        if joint and not rest.strip():
            _refuse(text, "ends with `and`", _EXAMPLE)
    if clause and not values:
        _refuse(text, "has an empty `where`", _EXAMPLE)
    selection = Selection(values=values)
    selection.where()  # a value its dimension cannot have is refused here
    return selection


def _limit(text: str, limit: str, unit: Unit) -> tuple[Decimal, Decimal]:
    match = _BASELINE.fullmatch(limit.strip())
    if match:
        more = _amount(text, match["more"], unit) if match["more"] else Decimal(0)
        return Decimal(match["factor"] or 1), more
    return Decimal(0), _amount(text, limit, unit)


def _amount(text: str, amount: str, unit: Unit) -> Decimal:
    amount = amount.strip()
    try:
        return _AMOUNTS[unit](amount)
    except ValueError:
        _refuse(text, f"has the limit {amount!r}", f"write it as {_WRITTEN[unit]}")


def _duration(amount: str) -> Decimal:
    return Decimal(parse_duration(amount))


def _number(amount: str) -> Decimal:
    if not _NUMBER.fullmatch(amount):
        raise ValueError(amount)
    return Decimal(amount)


def _with_suffix(suffix: str, size: int) -> Callable[[str], Decimal]:
    def amount_of(amount: str) -> Decimal:
        if not amount.endswith(suffix):
            raise ValueError(amount)
        return _number(amount.removesuffix(suffix).strip()) / size

    return amount_of


_AMOUNTS: Mapping[Unit, Callable[[str], Decimal]] = {
    "ns": _duration,
    "count": _number,
    "per_second": _with_suffix("/s", 1),
    "share": _with_suffix("%", 100),
}
_WRITTEN: Mapping[Unit, str] = {
    "ns": "a duration, as 5ms",
    "count": "a number, as 100",
    "per_second": "a rate, as 100/s",
    "share": "a share, as 1%",
}


def _refuse(text: str, what: str, hint: str) -> NoReturn:
    short = " ".join(text.split())
    raise UsageError(f"{short[:80] + '...' if len(short) > 80 else short!r} {what}", hint)
