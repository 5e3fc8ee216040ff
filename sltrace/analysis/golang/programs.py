"""What a Go process becomes by exec: another program, though it has the same pid.

Its goroutines are numbered anew and its histograms begin anew, so each is looked at by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sltrace.trace.reader import Trace

MAX_PROGRAMS = 20
"""Of one process whose findings are looked for: each takes as long as a trace of one."""
_EVER = 1 << 62
_TIME = {
    "waits": "end_ns",
    "gauges": "ns",
    "samples": "ns",
    "runtime_histograms": "start_ns",
    "targets": "from_ns",
}
"""By table, what tells of which program a row is."""


@dataclass(frozen=True)
class Program:
    """One of several of a process. All in ns of CLOCK_MONOTONIC.

    Attributes:
        after_ns: What is told of the process is of this one from there on, without that moment.
        from_ns: When it was first looked into.
        until_ns: And is until then, with that moment.
    """

    after_ns: int
    from_ns: int
    until_ns: int


def programs(trace: Trace) -> dict[int, list[Program]]:
    """Of each process that had several, in order; a process that is recorded twice may be one."""
    rows = trace.sql(
        "SELECT pid, from_ns, until_ns FROM targets "
        "WHERE runtime = 'go' AND level IS NOT NULL AND pid IS NOT NULL AND from_ns IS NOT NULL "
        "ORDER BY pid, from_ns"
    ).to_pylist()
    found: dict[int, list[Program]] = defaultdict(list)
    ended: dict[int, int | None] = {}
    for row in rows:
        pid, until = row["pid"], row["until_ns"]
        if ended.get(pid) is not None or pid not in ended:
            found[pid].append(Program(ended.get(pid) or -_EVER, row["from_ns"], _EVER))
        if until is not None:
            found[pid][-1] = Program(found[pid][-1].after_ns, found[pid][-1].from_ns, until)
        ended[pid] = until
    return {pid: _to_the_end(each) for pid, each in found.items() if len(each) > 1}


def _to_the_end(each: list[Program]) -> list[Program]:
    """The last with all that is told after its end."""
    last = each[-1]
    return [*each[:-1], Program(last.after_ns, last.from_ns, _EVER)]


def number_at(each: list[Program], ns: int) -> int:
    """Which of a process's programs it was at a moment, 1 for the first."""
    return min(bisect_left([program.until_ns for program in each], ns) + 1, len(each))


def by_program(trace: Trace) -> Iterator[Trace]:
    """Traces that have one program of every process each, of which the first has most."""
    several = programs(trace)
    if not several:
        yield trace
        return
    for number in range(min(max(map(len, several.values())), MAX_PROGRAMS)):
        one = type(trace)(trace.path, trace.meta)
        one.narrow({table: _condition(several, number, ns) for table, ns in _TIME.items()})
        yield one


def _condition(several: dict[int, list[Program]], number: int, ns: str) -> str:
    """Which rows are of the process's programs of this number, 0 for the first."""
    pids = ", ".join(map(str, several))
    conditions = [
        f"(pid = {pid} AND {ns} > {each[number].after_ns} AND {ns} <= {each[number].until_ns})"
        for pid, each in several.items()
        if number < len(each)
    ]
    others = [] if number else [f"pid NOT IN ({pids})"]
    return " OR ".join([*others, *conditions])


def beyond(trace: Trace) -> list[str]:
    """A sentence on the processes that were too many programs, if there are any."""
    most = {pid: len(each) for pid, each in programs(trace).items() if len(each) > MAX_PROGRAMS}
    return [
        f"process {pid} was {count:,} programs, one after the other: findings are of the first "
        f"{MAX_PROGRAMS}"
        for pid, count in list(most.items())[:MAX_PROGRAMS]
    ]
