"""Which waits, and by what: the dimensions of the waits table and filters over them.

A filter becomes a WHERE clause with bound parameters; no text of the user's is ever part of SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sltrace.analysis.bucket import Bucket
from sltrace.errors import UsageError
from sltrace.model import RUNQ, RUNQ_KINDS

Value = str | int | None
"""A value of a dimension; None where the trace does not know it."""


@dataclass(frozen=True)
class Dimension:
    """Something waits can be grouped and filtered by.

    Attributes:
        name: As the user types it.
        sql: Expression over `tables()`.
        type: Of its values.
        in_histograms: The histogram tables have it too.
        named: It comes from the `cgroups` table, which `tables()` has to join.
        of_thread: Waits that a runtime tells of lack it: `tables()` has to join `own_policy`.
    """

    name: str
    sql: str
    type: Literal["int", "str"] = "str"
    in_histograms: bool = False
    named: bool = False
    of_thread: bool = False


_DIMENSIONS = (
    Dimension("kind", "kind", in_histograms=True),
    Dimension("cgroup", "cgroup", in_histograms=True),
    Dimension("policy", "coalesce(policy, own_policy)", in_histograms=True, of_thread=True),
    Dimension("comm", "comm"),
    Dimension("pid", "pid", "int"),
    Dimension("tid", "tid", "int"),
    Dimension("cpu", "cpu", "int"),
    Dimension("node", "node", "int"),
    Dimension("state", "state"),
    Dimension("container", "nullif(container_id, '')", in_histograms=True, named=True),
    Dimension("pod", "nullif(pod_uid, '')", in_histograms=True, named=True),
    Dimension("unit", "nullif(unit, '')", in_histograms=True, named=True),
    Dimension("goid", "goid", "int"),
    Dimension("trace_id", "trace_id"),
    Dimension("span_id", "span_id"),
)
DIMENSIONS: Mapping[str, Dimension] = {d.name: d for d in _DIMENSIONS}


CLASS = Dimension(
    "class",
    f"CASE WHEN kind IN {RUNQ_KINDS!r} THEN '{RUNQ}' ELSE kind END",
    in_histograms=True,
)
"""RUNQ, and each other kind: what figures are totalled by."""


def dimensions(names: Iterable[str]) -> tuple[Dimension, ...]:
    """The named dimensions.

    Raises:
        UsageError: A name is unknown or given twice.
    """
    names = tuple(names)
    for name in names:
        if name not in DIMENSIONS:
            raise UsageError(f"cannot group by {name!r}", f"choose from {', '.join(DIMENSIONS)}")
        if names.count(name) > 1:
            raise UsageError(f"{name} is given twice", "name each dimension once")
    return tuple(DIMENSIONS[n] for n in names)


_POLICY_OF_THREAD = (
    "LEFT JOIN (SELECT tid AS own_tid, min(policy) AS own_policy FROM waits "
    "WHERE policy IS NOT NULL GROUP BY tid HAVING min(policy) = max(policy)) "
    "ON own_tid = CASE WHEN policy IS NULL THEN tid END"
)
"""The policy of a wait that has none: that of its thread's other waits, if they agree."""

# One row per cgroup: a second one would count its waits twice.
_NAMES = (
    "LEFT JOIN (SELECT cgroup_id AS named_id, max(container_id) AS container_id, "
    "max(pod_uid) AS pod_uid, max(unit) AS unit FROM cgroups GROUP BY cgroup_id) "
    "ON named_id = cgroup_id"
)


def tables(used: Iterable[Dimension], table: str = "waits") -> str:
    """FROM clause for a query that uses these dimensions."""
    used = tuple(used)
    joins = [table]
    if any(d.named for d in used):
        joins.append(_NAMES)
    if any(d.of_thread for d in used):
        # Histograms are of the scheduler's waits, which all have one.
        known = table.startswith("histogram")
        joins.append(
            "CROSS JOIN (SELECT NULL::VARCHAR AS own_policy)" if known else _POLICY_OF_THREAD
        )
    return " ".join(joins)


@dataclass(frozen=True)
class Selection:
    """A part of the waits: all conditions must hold.

    Attributes:
        start_ns: Waits that ended at this CLOCK_MONOTONIC time or later.
        end_ns: Waits that ended before this time.
        min_wait_ns: Waits at least this long.
        max_wait_ns: Waits shorter than this.
        values: For each dimension, the values to keep; None stands for unknown.
        bucket: Those of this bucket.
    """

    start_ns: int | None = None
    end_ns: int | None = None
    min_wait_ns: int | None = None
    max_wait_ns: int | None = None
    values: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    bucket: Bucket | None = None

    def __post_init__(self) -> None:
        dimensions(self.values)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions it filters by."""
        return dimensions(self.values)

    @property
    def kinds(self) -> tuple[Value, ...] | None:
        """The kinds it keeps; None for all."""
        return tuple(self.values["kind"]) if "kind" in self.values else None

    def with_kinds(self, kinds: Sequence[Value]) -> Selection:
        """The same, of these kinds unless it names some itself."""
        if self.kinds is not None:
            return self
        return replace(self, values={**self.values, "kind": tuple(kinds)})

    def to_json(self) -> dict[str, Any]:
        """What it says, as plain JSON values; times in ns. Empty for everything."""
        limits = ("start_ns", "end_ns", "min_wait_ns", "max_wait_ns")
        said: dict[str, Any] = {name: getattr(self, name) for name in limits}
        said |= {"values": {name: list(values) for name, values in self.values.items()}}
        said |= {"bucket": str(self.bucket) if self.bucket else None}
        return {name: value for name, value in said.items() if value not in (None, {})}

    def where(self) -> tuple[str, list[object]]:
        """Condition over `tables()` with its parameters; `true` for everything."""
        bounds = (
            ("end_ns >= ?", self.start_ns),
            ("end_ns < ?", self.end_ns),
            ("wait_ns >= ?", self.min_wait_ns),
            ("wait_ns < ?", self.max_wait_ns),
        )
        terms: list[tuple[str, list[object]]] = [
            (text, [value]) for text, value in bounds if value is not None
        ]
        terms += [_membership(d, self.values[d.name]) for d in self.dimensions]
        terms += [self.bucket.where()] if self.bucket else []
        if not terms:
            return "true", []
        return " AND ".join(text for text, _ in terms), [p for _, ps in terms for p in ps]


EVERYTHING = Selection()

LENGTH = "greatest(coalesce(wait_ns, 0), 0)"
"""How long a wait was, in SQL; 0 where whoever made the trace has it unknown or negative."""


def _membership(dimension: Dimension, values: Sequence[Value]) -> tuple[str, list[object]]:
    known = [_typed(dimension, v) for v in values if v is not None]
    terms = []
    if known:
        terms.append(f"{dimension.sql} IN ({', '.join('?' * len(known))})")
    if None in values:
        terms.append(f"{dimension.sql} IS NULL")
    return f"({' OR '.join(terms) or 'false'})", known


def _typed(dimension: Dimension, value: str | int) -> object:
    if dimension.type == "str":
        # Names that are not UTF-8 are in the trace like this, too; of an argument that the locale
        # cannot decode, bytes are escaped even where they are.
        return str(value).encode(errors="surrogateescape").decode(errors="replace")
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number < 2**63:
        raise UsageError(f"{dimension.name}={value} is not a number", "give a number such as 0")
    return number
