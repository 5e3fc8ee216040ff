"""What `sltrace serve` answers: the analyses by name, their parameters as a URL has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sltrace.analysis.selection import Selection
from sltrace.cli.selecting import Choice
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.analysis.part import Whole
    from sltrace.analysis.stacks import Which
    from sltrace.trace.reader import Trace

Query = Mapping[str, Sequence[str]]
"""Parameters of a URL; one may be there several times."""


@dataclass(frozen=True)
class _Asked:
    """A question: about which recording, how it is asked, and about which waits."""

    whole: Whole
    query: Query
    selection: Selection

    @property
    def trace(self) -> Trace:
        return self.whole.trace


_MAX_LIMIT = 100_000
_STACKS: Mapping[str, Which] = {"victim": "victim", "waker": "waker"}
_COMMON = ("after", "before", "min_wait", "max_wait", "only")


def answer(whole: Whole, name: str, query: Query) -> dict[str, Any] | None:
    """The answer to a question, in plain JSON values; None where there is no such question.

    Raises:
        UsageError: A parameter that cannot be.
    """
    question = _QUESTIONS.get(name)
    if question is None:
        return None
    wanted, ask = question
    if unknown := sorted(set(query) - {*wanted, *_COMMON}):
        has = ", ".join((*wanted, *_COMMON))
        raise UsageError(f"no parameter {unknown[0][:80]!r}", f"{name} has {has}")
    return ask(_Asked(whole, query, _selection(whole.trace, query)))


def _selection(trace: Trace, query: Query) -> Selection:
    times = {name: _number(query, name) for name in _COMMON if name != "only"}
    return Choice(
        times["after"],
        times["before"],
        times["min_wait"],
        times["max_wait"],
        tuple(query.get("only", ())),
    ).selection(trace)


def _heat(asked: _Asked) -> dict[str, Any]:
    from sltrace.analysis.zoom import LATENCY, heat

    columns = _number(asked.query, "columns")
    by = _one(asked.query, "by") or LATENCY
    return heat(
        asked.trace, by, asked.selection, columns=1000 if columns is None else columns
    ).to_json()


def _part(asked: _Asked) -> dict[str, Any]:
    from heatmaps.part import part_data

    if unusable := [n for n in _COMMON if n in asked.query and n not in ("after", "before")]:
        raise UsageError(f"part is of all waits, without {unusable[0]}", "give after and before")
    return part_data(asked.whole, asked.selection.start_ns, asked.selection.end_ns)


def _stat(asked: _Asked) -> dict[str, Any]:
    from sltrace.analysis.latency import stat

    by = _one(asked.query, "by")
    # An empty one asks for one group of everything.
    names = [n for n in ("kind" if by is None else by).split(",") if n]
    only_rows = not asked.trace.meta.get("histogram_only")
    kept = only_rows and _one(asked.query, "kept") == "1"
    return stat(
        asked.trace, names, asked.selection, limit=_limit(asked.query), kept_only=kept
    ).to_json()


def _blame(asked: _Asked) -> dict[str, Any]:
    from sltrace.analysis.blame import blame

    return blame(
        asked.trace, _one(asked.query, "by") or "cgroup", asked.selection, limit=_limit(asked.query)
    ).to_json()


def _flame(asked: _Asked) -> dict[str, Any]:
    from sltrace.analysis.flame import flame

    stack = _one(asked.query, "stack") or "victim"
    if stack not in _STACKS:
        raise UsageError(f"no stack {stack[:80]!r}", " or ".join(_STACKS))
    roots = [n for n in (_one(asked.query, "root") or "").split(",") if n]
    limit = _limit(asked.query) or _MAX_LIMIT
    found = flame(asked.trace, asked.selection, which=_STACKS[stack], roots=roots, limit=limit)
    return {
        "names": found.names,
        "stacks": found.stacks,
        "counts": found.counts,
        "wait_ns": found.wait_ns,
    }


def _diagnosis(asked: _Asked) -> dict[str, Any]:
    from sltrace.analysis.diagnosis import diagnose

    return diagnose(asked.trace).to_json()


def _traces(asked: _Asked) -> dict[str, Any]:
    from sltrace.analysis.timeline import slowest

    return slowest(asked.trace, asked.selection, limit=_limit(asked.query) or 20).to_json()


def _trace(asked: _Asked) -> dict[str, Any]:
    from sltrace.analysis.timeline import normal_id, timeline

    return timeline(asked.trace, normal_id(_one(asked.query, "id") or "")).to_json()


_QUESTIONS: Mapping[str, tuple[tuple[str, ...], Callable[[_Asked], dict[str, Any]]]] = {
    "heat": (("by", "columns"), _heat),
    "part": ((), _part),
    "stat": (("by", "limit", "kept"), _stat),
    "blame": (("by", "limit"), _blame),
    "flame": (("stack", "root", "limit"), _flame),
    "diagnosis": ((), _diagnosis),
    "traces": (("limit",), _traces),
    "trace": (("id",), _trace),
}


def _one(query: Query, name: str) -> str | None:
    values = query.get(name, ())
    if len(values) > 1:
        raise UsageError(f"{name} is given twice", "give it once")
    return values[0] if values else None


def _number(query: Query, name: str) -> int | None:
    text = _one(query, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(f"{name}={text[:80]} is not a number", "times are whole ns")
    return int(text)


def _limit(query: Query) -> int | None:
    limit = _number(query, "limit")
    if limit is not None and not 1 <= limit <= _MAX_LIMIT:
        raise UsageError(f"limit={limit} cannot be", f"1 to {_MAX_LIMIT:,}")
    return limit
