"""Whether the runtime that waits of a kind are of was looked into, and to the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sltrace.analysis.meta import filters, merged_parts
from sltrace.model import Kind
from sltrace.trace.notes import has_failed

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_RUNTIMES: Mapping[str, tuple[str, ...]] = {
    Kind.GOROUTINE.label: ("go",),
    Kind.GOROUTINE_BLOCKED.label: ("go",),
    Kind.STW.label: ("go", "python"),
    Kind.GIL.label: ("python",),
    Kind.LOOP.label: ("python",),
}
"""By kind the sources that tell of its waits; the scheduler's kinds are of none."""
_LEVEL = 1
_LEVELS = {Kind.GOROUTINE_BLOCKED.label: 2}
"""From which level on a process's waits of a kind are recorded."""

PYTHON_KINDS = frozenset(kind for kind, of in _RUNTIMES.items() if "python" in of)
"""The kinds that Python processes are looked into for."""


def looked_for(trace: Trace, kind: str) -> bool:
    """Whether there was a process whose waits of this kind were recorded, if it had some."""
    runtimes = [r for r in _RUNTIMES.get(kind, ()) if takes_part(trace, r)]
    if not runtimes:
        return kind not in _RUNTIMES
    names = ", ".join("?" * len(runtimes))
    query = f"SELECT 1 AS one FROM targets WHERE runtime IN ({names}) AND level >= ? LIMIT 1"
    return bool(trace.sql(query, [*runtimes, _LEVELS.get(kind, _LEVEL)]).num_rows)


def not_looked_for(kinds: Iterable[object]) -> str:
    """What was not looked into where no wait of these kinds could be recorded, for people."""
    wanted = [str(kind) for kind in kinds]
    runtimes = {runtime for kind in wanted for runtime in _RUNTIMES.get(kind, ())}
    if len(runtimes) != 1:
        return "no runtime was looked into"
    level = max(_LEVELS.get(kind, _LEVEL) for kind in wanted)
    at_level = f" at level {level}" if level > _LEVEL else ""
    return f"no {runtimes.pop().capitalize()} process was looked into{at_level}"


def why_none(trace: Trace, runtime: str) -> tuple[str, str]:
    """Why a trace has no process of a runtime at all, as far as it tells, and what to do."""
    named = "record one with sltrace record --pid PID or -- COMMAND"
    if not isinstance(trace.meta.get("sources"), dict) or merged_parts(trace):
        return "", f"{named}, not with --loader bcc"
    if trace.sources(runtime):
        return "none was among those that were recorded", named
    if trace.meta.get("loader") == "bcc":
        return "--loader bcc looks into none", "record again without --loader bcc"
    if runtime == "python" and trace.meta.get("histogram_only"):
        return "--histogram-only looks into none", "record again without --histogram-only"
    if runtime == "python" and not filters(trace).get("pids"):
        return "only those that are named are looked into", named
    return f"--no-{runtime} looks into none", f"record again without --no-{runtime}"


def takes_part(trace: Trace, runtime: str) -> bool:
    """Whether the recording has a source of this runtime, which the kernel did not refuse."""
    return any("refused" not in source for source in trace.sources(runtime))


def ended_early(trace: Trace, kinds: Iterable[object]) -> str:
    """What recorded waits of these kinds and failed before the end; empty if nothing did."""
    runtimes = dict.fromkeys(r for kind in kinds for r in _RUNTIMES.get(str(kind), ()))
    return " and ".join(runtime for runtime in runtimes if has_failed(trace.meta, runtime))
