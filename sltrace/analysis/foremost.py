"""Waits added up by something, with the thread name that waited longest among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sltrace.analysis.finding import name_of


def waits_by(key: str, waits: str) -> str:
    """A query of waits by `key`: `waited` (ns), `n`, `longest`; `comm`, and its `share` of it;
    the `pid` of one of its processes.

    Args:
        key: Column.
        waits: Table of waits, with its condition: what comes after FROM.
    """
    return (
        f"SELECT {key}, sum(part)::BIGINT AS waited, sum(waits)::BIGINT AS n, "
        "max(longest) AS longest, arg_max(comm, (part, comm)) AS comm, "
        "max(part) / sum(part) AS share, min(pid) AS pid "
        f"FROM (SELECT {key}, comm, min(pid) AS pid, sum(wait_ns)::BIGINT AS part, "
        "count(*) AS waits, max(wait_ns) AS longest "
        f"FROM {waits} GROUP BY {key}, comm) GROUP BY {key}"
    )


def figures(row: Mapping[str, Any]) -> dict[str, int]:
    """Of such a row, as a finding's numbers."""
    return {"waited_ns": row["waited"], "waits": row["n"], "longest_ns": row["longest"]}


def foremost(row: Mapping[str, Any]) -> str:
    """Of such a row, whose time it was most."""
    return f"{row['share']:.0%} of it `{name_of(row['comm'])}`"
