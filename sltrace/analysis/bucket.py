"""Buckets of an experiment: `hash(trace_id) % 100 < 15` is 15 % of the traces, always the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from sltrace.errors import UsageError

COLUMNS = ("trace_id", "span_id", "cgroup", "comm", "pid", "tid")
"""What can be hashed."""

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
    "==": eq,
    "!=": ne,
}
_NEGATED = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}
_PATTERN = re.compile(
    r"\s*hash\s*\(\s*(\w+)\s*\)\s*%\s*(\d{1,9})\s*(<=|>=|==|!=|=|<|>)\s*(\d{1,9})\s*"
)


@dataclass(frozen=True)
class Bucket:
    """A part of the values of a column, by their hash.

    The hash is the number that the first 16 hex digits of the value's MD5 are, the value as text.

    Attributes:
        column: One of COLUMNS.
        modulus: Buckets there are, 1 or more.
        operator: Between the hash modulo that, and the limit.
        limit: Number of a bucket.
    """

    column: str
    modulus: int
    operator: str
    limit: int

    def where(self) -> tuple[str, list[object]]:
        """Condition over `waits` with its parameters; unknown values are in no bucket."""
        return (
            # DuckDB's md5_number_upper reads the same bytes in the other order.
            f"({self.column} IS NOT NULL AND "
            f"('0x' || substr(md5({self.column}::VARCHAR), 1, 16))::UBIGINT % "
            f"?::UBIGINT {self.operator} ?::UBIGINT)",
            [self.modulus, self.limit],
        )

    def others(self) -> Bucket:
        """All other values."""
        return replace(self, operator=_NEGATED[self.operator])

    def __str__(self) -> str:
        return f"hash({self.column}) % {self.modulus} {self.operator} {self.limit}"


def parse_bucket(text: str) -> Bucket:
    """Reads `hash(COLUMN) % N OP M`.

    Raises:
        UsageError: It is something else, or holds nothing or everything.
    """
    hint = "write it as 'hash(trace_id) % 100 < 15'"
    match = _PATTERN.fullmatch(text)
    if not match:
        raise UsageError(f"{text[:80]!r} is not a bucket", hint)
    column, modulus, limit = match[1], int(match[2]), int(match[4])
    if column not in COLUMNS:
        raise UsageError(f"cannot hash {column!r}", f"choose from {', '.join(COLUMNS)}")
    operator = "==" if match[3] == "=" else match[3]
    # Numbers from the limit's neighbours on behave like the ends.
    kept = {
        _OPERATORS[operator](n, limit)
        for n in {0, modulus - 1, limit - 1, limit, limit + 1}
        if 0 <= n < modulus
    }
    if len(kept) != 2:
        raise UsageError(f"{text[:80]!r} does not split anything", hint)
    return Bucket(column, modulus, operator, limit)
