"""Which NUMA node each CPU of a trace is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_MAX_CPUS = 1 << 16


def node_of_cpu(trace: Trace) -> dict[int, int]:
    """By CPU its node, from the metadata; CPUs that it does not name are left out."""
    nodes = trace.meta.get("nodes")
    found: dict[int, int] = {}
    for node, cpus in nodes.items() if isinstance(nodes, dict) else ():
        if not (isinstance(node, str) and node.isascii() and node.isdigit() and len(node) < 6):
            continue
        for cpu in cpus if isinstance(cpus, list) else ():
            if isinstance(cpu, int) and 0 <= cpu < _MAX_CPUS:
                found[cpu] = int(node)
    return found
