"""The figures of one group of waits, each exact or between two bounds."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sltrace.analysis.selection import Value

QUANTILES = (
    ("p50", Decimal("0.5")),
    ("p90", Decimal("0.9")),
    ("p99", Decimal("0.99")),
    ("p999", Decimal("0.999")),
)

RANKED = (*(quantile for _, quantile in QUANTILES), Decimal(1))
"""Of a group: QUANTILES, and the longest wait."""


@dataclass(frozen=True)
class Range:
    """A duration (ns) that lies between two bounds, both included.

    Attributes:
        low_ns: Not shorter than this.
        high_ns: Not longer than this; None where only the lower bound is known.
    """

    low_ns: int
    high_ns: int | None

    @property
    def exact(self) -> bool:
        """It is known exactly."""
        return self.low_ns == self.high_ns

    def within(self, shortest_ns: int | None, longest_ns: int | None) -> Range:
        """The same of waits that are at least so long, and shorter than that."""
        low = max(self.low_ns, shortest_ns or 0)
        if longest_ns is None:
            return Range(low, self.high_ns)
        most = longest_ns - 1
        return Range(low, most if self.high_ns is None else min(self.high_ns, most))


@dataclass(frozen=True)
class Group:
    """Waits with the same keys.

    Attributes:
        keys: One value per dimension.
        count: How many.
        total_ns: Their sum.
        quantiles: In the order of QUANTILES.
        longest: The longest wait.
        censored: How many began before the recording, so that they were longer than this;
            None where the trace does not tell.
    """

    keys: tuple[Value, ...]
    count: int
    total_ns: int
    quantiles: tuple[Range, ...]
    longest: Range
    censored: int | None

    def to_json(self, by: tuple[str, ...]) -> dict[str, Any]:
        """As plain JSON values: `p99_ns` is the upper bound, `p99_low_ns` the lower."""
        figures: dict[str, Any] = {
            "keys": dict(zip(by, self.keys, strict=True)),
            "count": self.count,
            "total_ns": self.total_ns,
        }
        named = [(name, r) for (name, _), r in zip(QUANTILES, self.quantiles, strict=True)]
        for name, value in [*named, ("max", self.longest)]:
            figures[f"{name}_ns"] = value.high_ns
            figures[f"{name}_low_ns"] = value.low_ns
        return figures | {"censored": self.censored}
