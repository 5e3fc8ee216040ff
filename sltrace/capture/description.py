"""What a trace says of the machine and the recording it is from: the first `meta.json`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sltrace import __version__
from sltrace.capture import kernel
from sltrace.capture.settings import Settings
from sltrace.capture.tallies import CLASSES
from sltrace.names.hierarchy import Hierarchy
from sltrace.names.topology import Topology


def describe(
    settings: Settings,
    hierarchy: Hierarchy,
    topology: Topology,
    *,
    loader: str,
    command_line: Sequence[str],
    clock: dict[str, int],
) -> dict[str, Any]:
    """Keys of meta.json that are known before anything is recorded (docs/schema.md)."""
    uname = platform.uname()
    return {
        "sltrace": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": list(command_line),
        "host": uname.node,
        "boot_id": kernel.boot_id(),
        "kernel": uname.release,
        "arch": uname.machine,
        "cpus": len(topology.cpus),
        "nodes": {str(n): list(cpus) for n, cpus in topology.nodes.items()},
        "clock": clock,
        "loader": loader,
        "filters": settings.filters.as_meta(),
        "cgroup": {
            "hierarchy": hierarchy.kind,
            "mount": str(hierarchy.mount),
            "why": hierarchy.why,
        },
        "stacks": {
            "kernel": settings.stacks.kernel,
            "user": settings.stacks.user,
            "waker": settings.stacks.waker,
            "min_ns": settings.stacks.min_ns,
            "rate_per_cpu": settings.stacks.rate_per_cpu,
        },
        "histogram_only": settings.histogram_only,
        "min_latency_ns": settings.min_latency_ns,
        "blocked": settings.blocked,
        "counter_classes": CLASSES,
        "limits": [*kernel.limits(), *filter(None, [hierarchy.limit])],
    }
