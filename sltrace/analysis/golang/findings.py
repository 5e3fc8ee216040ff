"""All that is wrong with the scheduling of Go processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sltrace.analysis.golang.finding import Finding
from sltrace.analysis.golang.goroutines import amplification, leaks
from sltrace.analysis.golang.processors import backlog, hoarding, lost_p
from sltrace.analysis.golang.programs import by_program

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace


def findings(trace: Trace) -> tuple[Finding, ...]:
    """All of them, by time."""
    checks: tuple[Callable[[Trace], list[Finding]], ...] = (
        leaks,
        hoarding,
        lost_p,
        backlog,
        amplification,
    )
    found = [f for one in by_program(trace) for check in checks for f in check(one)]
    return tuple(sorted(found, key=lambda f: (f.start_ns, f.name, f.pid)))
