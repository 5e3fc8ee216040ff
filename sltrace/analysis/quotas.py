"""CPU quotas of cgroups: what they were, as the trace has a row for each that it saw."""

from __future__ import annotations

WITH_QUOTAS = """LEFT JOIN (
  SELECT cgroup_id AS quota_cgroup_id, max(coalesce(seen_ns, 0)) AS quota_seen_ns,
    arg_max({'quota_us': quota_us, 'period_us': period_us}, coalesce(seen_ns, 0)) AS quota,
    count(DISTINCT quota_us / period_us) AS quotas
  FROM cgroups WHERE quota_us > 0 AND period_us > 0 GROUP BY cgroup_id
) ON kind = 'throttled' AND quota_cgroup_id = coalesce(culprit_cgroup_id, cgroup_id)"""
"""Joins waits: to one for a quota what it was at last, when that was seen, and how many it was."""

LAST_OF_GROUP = "arg_max(quota, quota_seen_ns) AS quota, coalesce(max(quotas), 0) AS quotas"
"""The same of a group of waits WITH_QUOTAS: NULL and 0 where there is none."""


def longest_held_by(condition: str) -> str:
    """A query of processes: `whose` quota each waited for longest, and that LAST_OF_GROUP.

    Args:
        condition: Which throttled waits to look at: SQL over columns of waits.
    """
    return (
        "SELECT pid, coalesce(culprit_cgroup, cgroup) AS whose, "
        f"{LAST_OF_GROUP} FROM waits {WITH_QUOTAS} "
        f"WHERE kind = 'throttled' AND {condition} GROUP BY pid, whose "
        "QUALIFY row_number() OVER (PARTITION BY pid ORDER BY sum(wait_ns) DESC, whose) = 1"
    )


def cpus(quota_us: int, period_us: int) -> float:
    """How many CPUs a quota is worth."""
    return quota_us / period_us


def at_last(quotas: int) -> str:
    """What to say before a quota that another one came before."""
    return "at last " if quotas > 1 else ""
