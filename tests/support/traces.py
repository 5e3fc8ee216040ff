"""Traces made by hand: rows with defaults for every column a test does not care about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from sltrace.trace.schema import arrow_schema
from sltrace.trace.writer import TraceWriter

SECOND = 1_000_000_000

WAIT: dict[str, Any] = {
    "end_ns": SECOND,
    "wait_ns": 1000,
    "kind": "runq_wakeup",
    "pid": 100,
    "tid": 100,
    "comm": "web",
    "cpu": 0,
    "prev_cpu": 0,
    "node": 0,
    "migrated": False,
    "cgroup_id": 1,
    "cgroup": "/",
    "policy": "OTHER",
    "prio": 120,
    "nice": 0,
    "state": "S",
    "flags": 0,
}

META: dict[str, Any] = {
    "sltrace": "0.1.0",
    "created": "2026-01-01T00:00:00+00:00",
    "command_line": ["sltrace", "record"],
    "host": "testhost",
    "kernel": "6.18.0",
    "arch": "x86_64",
    "cpus": 2,
    "nodes": {"0": [0, 1]},
    "clock": {
        "start_ns": 0,
        "start_unix_ns": 1_700_000_000 * SECOND,
        "end_ns": 10 * SECOND,
        "end_unix_ns": 1_700_000_010 * SECOND,
    },
    "loader": "libbpf",
    "filters": {},
    "cgroup": {"hierarchy": "v2", "mount": "/sys/fs/cgroup", "why": "made by hand"},
    "stacks": {"kernel": False, "user": False, "waker": False, "rate_per_cpu": 0, "min_ns": 0},
    "histogram_only": False,
    "min_latency_ns": 0,
    "probes": {"attached": ["sched_switch"], "not_attached": []},
    "overhead": {"probe_ns": 0, "probe_runs": 0, "recorder_cpu_ns": 0, "wall_ns": 10 * SECOND},
    "limits": [],
}


def make_trace(
    folder: Path,
    waits: list[dict[str, Any]] | pa.Table = (),
    *,
    meta: dict[str, Any] | None = None,
    **tables: list[dict[str, Any]] | pa.Table,
) -> Path:
    """A finished trace `folder/made.slt`; rows of `waits` need only what the test is about."""
    path = folder / "made.slt"
    writer = TraceWriter.create(path, META | (meta or {}), force=True)
    rows = waits if isinstance(waits, pa.Table) else [WAIT | row for row in waits]
    for table, content in {"waits": rows, **tables}.items():
        if not isinstance(content, pa.Table):
            schema = arrow_schema(table)
            present = {name for row in content for name in row}
            fields = pa.schema([f for f in schema if f.name in present])
            content = pa.Table.from_pylist(list(content), schema=fields)
        writer.append(table, content)
    writer.close()
    return path
