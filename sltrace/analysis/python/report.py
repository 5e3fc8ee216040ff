"""Everything `sltrace python` shows, from one trace."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from sltrace.analysis.losses import Losses, losses
from sltrace.analysis.meta import lived_ns, natural, recorded_ns
from sltrace.analysis.python import tables
from sltrace.analysis.python.findings import Finding, findings
from sltrace.analysis.python.locks import Lock, locks

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_ALL = 1_000_000
_LISTS = (
    "processes",
    "findings",
    "gil",
    "gil_traces",
    "loops",
    "locks",
    "collectors",
    "quotas",
)


@dataclass(frozen=True)
class PythonReport:
    """See the functions of sltrace.analysis.python.tables for what each is."""

    wall_ns: int
    processes: list[tables.Process]
    findings: list[Finding]
    gil: list[tables.GilThread]
    gil_traces: list[tables.GilTrace]
    loops: list[tables.Loop]
    locks: list[Lock]
    collectors: list[tables.Collector]
    quotas: list[tables.Quota]
    notes: list[str]
    losses: Losses

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; times in ns."""
        lists = {name: [asdict(item) for item in getattr(self, name)] for name in _LISTS}
        return {
            "wall_ns": self.wall_ns,
            **lists,
            "notes": self.notes,
            "losses": self.losses.to_json(),
        }


def python_report(trace: Trace, limit: int | None = 20) -> PythonReport:
    """Reads all of it; findings are of all threads, the lists of the first `limit`, or all."""
    gil, loops = tables.gil_threads(trace, _ALL), tables.loops(trace, _ALL)
    places = locks(trace, _ALL)
    recorded = cache(partial(lived_ns, trace, runtime="python"))
    collectors, quotas = tables.collectors(trace), tables.quotas(trace)
    return PythonReport(
        wall_ns=max(recorded_ns(trace), 1),
        processes=tables.processes(trace),
        findings=findings(recorded, gil, loops, places, collectors, quotas),
        gil=gil[:limit],
        gil_traces=tables.gil_traces(trace, limit or _ALL),
        loops=loops[:limit],
        locks=places[:limit],
        collectors=collectors[:limit],
        quotas=quotas[:limit],
        notes=[*_notes(trace), *trace.notes],
        losses=losses(trace),
    )


def refused(trace: Trace) -> str:
    """Why this kernel did not let any process be looked into; empty if it did."""
    return "; ".join(str(s["refused"]) for s in trace.sources("python") if s.get("refused"))


def _notes(trace: Trace) -> list[str]:
    """What was not recorded, and what the figures do not cover."""
    rows = trace.sql(
        "SELECT name, sum(value)::BIGINT AS n FROM counters WHERE starts_with(name, 'python_') "
        "GROUP BY name"
    ).to_pylist()
    counted = {r["name"]: r["n"] for r in rows}
    notes = []
    if capped := counted.get("python_stacks_capped"):
        rates = {str(s.get("stack_rate_per_cpu")) for s in trace.sources("python")}
        share = capped / max(capped + counted.get("python_stacks", 0), 1)
        notes.append(
            f"{share:.1%} of the Python stacks and trace ids were not taken: more than "
            f"--python-rate {' or '.join(sorted(rates))}"
        )
    if replaced := sum(natural(s.get("code_replaced")) for s in trace.sources("python")):
        notes.append(
            f"{replaced:,} code objects made room for others: some stacks of the seconds after "
            "that may have the name of the one before"
        )
    if lost := counted.get("python_waits_lost"):
        notes.append(f"{lost:,} waits of kind gil, loop or stw were lost: the ring was full")
    return notes
