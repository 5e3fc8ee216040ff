"""The blocking chains of goroutines as one HTML page: a graph of all, and a path in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heatmaps.assemble import assemble
from heatmaps.encode import ColumnBlock, bounded, said
from heatmaps.facts import notice

if TYPE_CHECKING:
    from sltrace.analysis.golang.chain import Chain
    from sltrace.trace.reader import Trace

MAX_LINKS = 2000
MAX_STEPS = 5000
_SCRIPTS = ("text.js", "theme.js", "tip.js", "table.js", "chaingraph.js", "chainpath.js",
            "chain.js")  # fmt: skip


def build_chain_page(trace: Trace, chain: Chain, subject: str) -> bytes:
    """Makes the page.

    Args:
        trace: Where the chains are from.
        chain: What `sltrace chain` found.
        subject: What it is about, as `goroutine 7`; empty for the whole recording.
    """
    meta = trace.meta
    data: dict[str, Any] = {
        "subject": bounded(subject),
        "host": bounded(meta.get("host")),
        "name": bounded(trace.path.name),
        "created": bounded(meta.get("created")),
        "losses": notice(chain.losses),
        "notes": [said(note) for note in (*chain.notes, *_cut(chain))],
        "links": [
            {
                "where": bounded(link.where),
                "started": bounded(link.started),
                "words": bounded(link.why.words),
                "costs": link.why.costs,
                "waker": bounded(link.waker),
                "count": link.count,
                "blocked": link.blocked_ns,
                "runq": link.runq_ns,
            }
            for link in chain.links[:MAX_LINKS]
        ],
        "several": chain.several,
        "steps": [
            {
                "from": step.start_ns,
                "to": step.end_ns,
                "parked": step.kind == "goroutine_blocked",
                "pid": step.pid,
                "nth": step.nth,
                "goid": step.goid,
                "where": bounded(step.where),
                "words": bounded(step.why.words),
                "waker": bounded(step.waker),
                "waker_goid": step.waker_goid,
            }
            for step in chain.steps[:MAX_STEPS]
        ],
    }
    title = f"sltrace chain: {data['subject'][:80] or data['host'][:80]} {trace.path.name[:80]}"
    return assemble("chain.html", _SCRIPTS, title, data, ColumnBlock())


def _cut(chain: Chain) -> list[str]:
    """What was left out of the page, in sentences."""
    return [
        f"only the first {limit:,} of {total:,} {what} are on this page"
        for total, limit, what in (
            (len(chain.links), MAX_LINKS, "links"),
            (chain.steps_total, MAX_STEPS, "waits of the path"),
        )
        if total > limit
    ]
