"""What is wrong with this machine or service, in sentences: nothing where nothing is wrong.

Each finding has its own threshold (`sltrace.analysis.contention`, `.bandwidth`, `.stalls`,
`.runtimes`; docs/cli.md).
They are about what was seen: losses can hide a finding, never make one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sltrace.analysis.bandwidth import bandwidth
from sltrace.analysis.contention import contention, moves, one_cpu, quota
from sltrace.analysis.finding import Finding
from sltrace.analysis.golang.health import refused, unread
from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import all_notes, min_latency_ns, recorded_ns
from sltrace.analysis.runtimes import go, python
from sltrace.analysis.stalls import blocked_io, steal, wakeup
from sltrace.durations import format_duration

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_OF_A_MACHINE = (contention, bandwidth, quota, moves, blocked_io)
"""Of the time that the machine was recorded on which they are; the others of all that was."""
_OF_ALL = (one_cpu, wakeup, go, python)


@dataclass(frozen=True)
class Diagnosis:
    """All that is wrong.

    Attributes:
        findings: Most time lost first; empty where nothing is wrong.
        losses: What the trace lacks.
        notes: What could not be looked into, a sentence each.
    """

    findings: tuple[Finding, ...]
    losses: Losses
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        return {
            "findings": [asdict(f) for f in self.findings],
            "losses": self.losses.to_json(),
            "notes": list(self.notes),
        }


def diagnose(trace: Trace, *, most: int = 3, lost: Losses | None = None) -> Diagnosis:
    """Looks for everything this knows.

    Args:
        trace: Where from. Without single waits only steal is looked for.
        most: Findings of one name, those with the most time lost.
        lost: What the trace lacks, where that was counted before.
    """
    lost = lost or losses(trace)
    wall_ns = recorded_ns(trace)
    if wall_ns <= 0:
        return Diagnosis((), lost, ("the trace does not say how long it is",))
    looked = [steal(trace, wall_ns)]
    notes = [*all_notes(trace), *unread(trace), *refused(trace)]
    if trace.meta.get("histogram_only"):
        notes.append("histograms only: waits were not looked into")
    else:
        looked += [look(trace) for look in _OF_A_MACHINE]
        looked += [look(trace, wall_ns) for look in _OF_ALL]
        if threshold := min_latency_ns(trace):
            shortest = format_duration(threshold)
            notes.append(f"waits shorter than {shortest} were not kept, and not looked into")
        if not trace.sql("SELECT 1 AS one FROM waits LIMIT 1").num_rows:
            notes.append("there are no waits in it")
    found = [finding for findings in looked for finding in _first(findings, most)]
    found.sort(key=lambda f: -f.lost)
    return Diagnosis(tuple(found), lost, tuple(notes))


def _first(findings: Sequence[Finding], most: int) -> Iterator[Finding]:
    """The first `most` of each name."""
    seen: Counter[str] = Counter()
    for finding in findings:
        seen[finding.name] += 1
        if seen[finding.name] <= most:
            yield finding
