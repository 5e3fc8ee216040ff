"""Profiles that are in a trace, as those of files are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sltrace.plural import counted
from sltrace.profiles.labels import Labels
from sltrace.profiles.pprof import MOST, Profile, ProfileFrame, Window, parse_pprof
from sltrace.profiles.push import in_push
from sltrace.profiles.source import ProfileError, read_bytes

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

MAX_READ = 256 << 20
"""Bytes of profiles that are read of a trace: what a recorder stores at most."""
_BATCH = 64
_THERE = "profile IS NOT NULL"
_OF_THE_CLIENT = ("__", "otel.", "process.", "service_")
"""How labels begin that clients add by themselves."""


def stored_profiles(trace: Trace) -> tuple[list[Profile], list[str]]:
    """The profiles in a trace, those of one service and measure as one.

    Returns:
        The profiles, and what could not be read of them, a sentence each.
    """
    parts: dict[tuple[str, str], list[Profile]] = {}
    totals: Counter[tuple[str, str]] = Counter()
    notes = _refused(trace)
    looked_at = 0
    for row in _rows(trace):
        looked_at += 1
        where = _name(str(row["app"]), row["labels"])
        try:
            read = parse_pprof(row["profile"], where)
        except ProfileError as err:
            notes.append(f"a profile in the trace was left out: {err.message}")
            continue
        whose = (where, read.measure)
        if totals[whose] + read.total > MOST:
            notes.append(
                f"a profile in the trace was left out: {where} has more time than a machine can"
            )
            continue
        totals[whose] += read.total
        if row["start_ns"] is not None:
            start = row["start_ns"] + _to_unix(trace)
            read = replace(
                read,
                start_unix_ns=max(0, start),
                duration_ns=max(0, (row["end_ns"] or row["start_ns"]) - row["start_ns"]),
                placed=True,
            )
        parts.setdefault(whose, []).append(read)
    return [_joined(found) for found in parts.values()], notes + _beyond(trace, looked_at)


def profiles_beside(trace: Trace, more: Sequence[str]) -> tuple[list[Profile], list[str]]:
    """The profiles in a trace and those of files or URLs.

    Returns:
        The profiles, and what could not be read of the trace's own, a sentence each.

    Raises:
        ProfileError: One of `more` cannot be had.
    """
    stored, left_out = stored_profiles(trace)
    return [*stored, *(p for where in more for p in read_profiles(where))], left_out


def read_profiles(where: str) -> list[Profile]:
    """Reads a profile of times, or the profiles of a push that was saved.

    Args:
        where: Path or http(s) URL, packed with gzip or not.

    Raises:
        ProfileError: It is not there, or has none.
    """
    data = read_bytes(where)
    try:
        return [parse_pprof(data, where)]
    except ProfileError:
        if not (pushed := in_push(data)):
            raise
    return [parse_pprof(p.data, f"{where}: {_name(p.app, p.labels)}") for p in pushed]


def _refused(trace: Trace) -> list[str]:
    """What the recorder did not take in."""
    found = []
    for source in trace.sources("profiles"):
        refused = source.get("refused")
        found += [
            f"profiles that were not taken in: {count}, {why}"
            for why, count in (refused.items() if isinstance(refused, dict) else ())
        ]
    return found


def _rows(trace: Trace) -> Iterator[dict[str, Any]]:
    """Rows of the table, at most MAX_READ bytes of profile."""
    left = MAX_READ
    query = f"SELECT * FROM profiles WHERE {_THERE} ORDER BY app, labels, measure, ns"
    for batch in trace.batches(query, _BATCH):
        for row in batch.to_pylist():
            left -= len(row["profile"])
            if left < 0:
                return
            yield row


def _beyond(trace: Trace, looked_at: int) -> list[str]:
    """That there are more than were looked at."""
    found = trace.sql(f"SELECT count(*) AS n FROM profiles WHERE {_THERE}")["n"][0].as_py()
    if (more := found - looked_at) <= 0:
        return []
    verb = "was" if more == 1 else "were"
    why = f"together they are more than {MAX_READ >> 20} MB"
    return [f"{counted(more, 'profile')} in the trace {verb} left out: {why}"]


def _name(app: str, labels: str | None) -> str:
    """The service, with the labels its owner gave it: `shop{region=eu}`."""
    try:
        named = json.loads(labels or "{}").items()
    except (ValueError, AttributeError, RecursionError):
        return app
    pairs = [f"{k}={v}" for k, v in sorted(named) if not k.startswith(_OF_THE_CLIENT)]
    return f"{app}{{{','.join(pairs)}}}" if pairs else app


def _to_unix(trace: Trace) -> int:
    """What to add to a time of the trace for one of the wall clock; 0 where unknown."""
    clock = trace.meta.get("clock")
    begin, unix = (
        clock.get(name) if isinstance(clock, dict) else None
        for name in ("start_ns", "start_unix_ns")
    )
    return unix - begin if isinstance(unix, int) and isinstance(begin, int) else 0


def _joined(parts: Sequence[Profile]) -> Profile:
    """Profiles of the same service and measure as one, from the first to the last.

    What is in it knows which of them it is from, by when that was taken.
    """
    if len(parts) == 1:
        return parts[0]
    frames: dict[ProfileFrame, int] = {}
    sums: dict[tuple[tuple[int, ...], Labels, Window], int] = {}
    for part in parts:
        number = [frames.setdefault(frame, len(frames)) for frame in part.frames]
        window = (part.start_unix_ns, part.duration_ns)
        for stack, labels, value in zip(part.stacks, part.labels, part.values, strict=True):
            key = tuple(number[i] for i in stack), labels, window
            sums[key] = sums.get(key, 0) + value
    start = min(p.start_unix_ns for p in parts)
    end = max(p.start_unix_ns + p.duration_ns for p in parts)
    return replace(
        parts[0],
        start_unix_ns=start,
        duration_ns=end - start if start else 0,
        frames=list(frames),
        stacks=[stack for stack, _, _ in sums],
        labels=[labels for _, labels, _ in sums],
        values=list(sums.values()),
        windows=[window for _, _, window in sums],
    )
