"""What is wrong with Ps: one goroutine keeps one, the kernel takes its thread off, too few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sltrace.analysis.finding import Name
from sltrace.analysis.golang.finding import Finding
from sltrace.analysis.golang.sites import UNKNOWN, sites
from sltrace.analysis.meta import clock_ns, lived_ns
from sltrace.analysis.quotas import at_last, cpus, longest_held_by

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_WINDOW_NS = 1_000_000_000
HOLD_NS = 100_000_000
"""The runtime asks a goroutine for its P after 10 ms: this is ten times that."""
_IN_CALL = 2
"""Of the gauge p_state."""
_COLLECTOR = "runtime.gcBgMark"
"""What marks the heap has a quarter of the Ps for as long as that takes, by design."""
BACKLOG = 16.0
"""Goroutines queued per P, over a second. A service that keeps up has below 1."""
LOST_SHARE = 0.2
"""Of the time of all Ps; another busy process on a shared CPU takes some of it anywhere."""
QUOTA_SHARE = 0.02


def hoarding(trace: Trace) -> list[Finding]:
    """A P that one goroutine keeps, longer than the runtime lets it: the longest of each."""
    origin = clock_ns(trace, "start_ns")
    # A thread that is not let run, by the kernel or a signal, or waits for the world to stop,
    # cannot give its P away: that is no fault of the goroutine. Nor is a system call: from one the
    # runtime takes the P after 10 ms, unless it is not let run itself. How long a goroutine was off
    # the CPU up to a moment is a running sum: to join holds with waits takes quadratic time.
    rows = trace.sql(
        """
        WITH held AS (
          SELECT h.pid, h.item AS p, h.ns, h.value AS hold, g.value::BIGINT AS goid
          FROM gauges h JOIN gauges g ON h.pid = g.pid AND h.ns = g.ns AND h.item = g.item
            AND g.name = 'p_goid'
          JOIN gauges s ON h.pid = s.pid AND h.ns = s.ns AND h.item = s.item
            AND s.name = 'p_state' AND s.value <> $2
          WHERE h.name = 'p_hold_ns'
        ), longest AS (
          SELECT pid, p, goid, max(ns) - max(hold)::BIGINT AS since, max(ns) AS until
          FROM held GROUP BY pid, p, goid, ns - hold::BIGINT HAVING max(hold) >= $1
        ), kernel AS (
          SELECT pid, goid, end_ns, wait_ns, stack_runtime AS stack
          FROM waits SEMI JOIN longest USING (pid, goid)
          WHERE kind IN ('runq_preempt', 'runq_wakeup', 'throttled', 'blocked')
        ), moments AS (
          SELECT pid, goid, end_ns - wait_ns AS ns, wait_ns, end_ns FROM kernel
          UNION ALL BY NAME
          SELECT *, unnest([since, until]) AS ns FROM longest
        ), so_far AS (
          SELECT *, coalesce(sum(wait_ns) OVER past - greatest(max(end_ns) OVER past - ns, 0), 0)
            AS off
          FROM moments
          WINDOW past AS (PARTITION BY pid, goid ORDER BY ns ROWS UNBOUNDED PRECEDING)
        ), holds AS (
          SELECT pid, p, goid, since, until, until - since AS hold,
            (max(off) - min(off))::BIGINT AS off
          FROM so_far WHERE since IS NOT NULL GROUP BY ALL HAVING hold - off >= $1
        ), worst AS (
          SELECT * FROM holds
          QUALIFY row_number() OVER (PARTITION BY pid, goid ORDER BY hold DESC, since, p) = 1
        )
        SELECT w.*, coalesce(mode(stack) FILTER (end_ns BETWEEN since AND until + 1000000000),
          mode(stack)) AS stack
        FROM worst w LEFT JOIN kernel USING (pid, goid) GROUP BY ALL ORDER BY hold DESC, pid, goid
        """,
        [HOLD_NS, _IN_CALL],
    ).to_pylist()
    named = sites(trace, [r["stack"] for r in rows])
    found = []
    for row in rows:
        site = named.get(row["stack"] or 0, UNKNOWN)
        if site.started.startswith(_COLLECTOR):
            continue
        found.append(
            Finding(
                Name.P_HOARDING,
                row["pid"],
                row["since"] - origin,
                row["until"] - origin,
                f"no goroutine may keep a P for {HOLD_NS // 1_000_000} ms",
                f"goroutine {row['goid']} kept P {row['p']} for {row['hold'] / 1e6:.0f} ms "
                f"without a break, in {site.where}, started by {site.started}",
                {
                    "goid": row["goid"],
                    "p": row["p"],
                    "hold_ns": row["hold"],
                    "off_cpu_ns": row["off"],
                    "where": site.where,
                    "started": site.started,
                },
            )
        )
    return found


def lost_p(trace: Trace) -> list[Finding]:
    """Threads that the kernel takes off the CPU while they hold a P."""
    origin = clock_ns(trace, "start_ns")
    rows = trace.sql(
        f"""
        WITH held AS ({longest_held_by("held_p IS NOT NULL")}), ps AS (
          SELECT pid, avg(value) AS ps, min(value) <> max(value) AS varied
          FROM gauges WHERE name = 'gomaxprocs' GROUP BY pid HAVING ps > 0
        ), lost AS (
          SELECT *, kind = 'throttled' AS by_quota,
            NOT by_quota AND culprit_pid IS NOT DISTINCT FROM pid AS by_own
          FROM waits WHERE held_p IS NOT NULL AND kind IN ('runq_preempt', 'throttled')
        ), others AS (
          SELECT pid, culprit_comm AS culprit FROM lost
          WHERE NOT by_quota AND NOT by_own AND culprit_comm IS NOT NULL
          GROUP BY pid, culprit_comm
          QUALIFY row_number() OVER (PARTITION BY pid ORDER BY sum(wait_ns) DESC, culprit) = 1
        )
        SELECT lost.pid, any_value(ps) AS ps, any_value(varied) AS varied,
          min(end_ns - wait_ns) AS first, max(end_ns) AS last,
          coalesce(sum(wait_ns) FILTER (by_quota), 0)::BIGINT AS throttled,
          coalesce(sum(wait_ns) FILTER (NOT by_quota), 0)::BIGINT AS preempted,
          coalesce(sum(wait_ns::HUGEINT * queued), 0)::DOUBLE AS behind,
          coalesce(sum(wait_ns) FILTER (by_own), 0)::BIGINT AS own,
          any_value(culprit) AS culprit,
          any_value(quota) AS quota, coalesce(any_value(quotas), 0) AS quotas
        FROM lost JOIN ps USING (pid) LEFT JOIN held USING (pid) LEFT JOIN others USING (pid)
        GROUP BY lost.pid
        """
    ).to_pylist()
    found = []
    for row in rows:
        available = lived_ns(trace, row["pid"], "go") * row["ps"]
        quota = cpus(**row["quota"]) if row["quota"] else None
        shares = {
            _by_quota(row, quota): (row["throttled"] / available, QUOTA_SHARE),
            _by_others(row): (row["preempted"] / available, LOST_SHARE),
        }
        beyond = [
            f"{share:.0%} of the Ps' time because of {why}"
            for why, (share, threshold) in shares.items()
            if share >= threshold
        ]
        if not beyond:
            continue
        found.append(
            Finding(
                Name.LOST_P,
                row["pid"],
                max(row["first"] - origin, 0),
                row["last"] - origin,
                f"below {QUOTA_SHARE:.0%} of the Ps' time to the quota, {LOST_SHARE:.0%} to others",
                f"threads that held a P were off the CPU for {' and '.join(beyond)}; at most "
                f"{row['behind'] / 1e9:.2f} goroutine-seconds were queued behind them",
                {
                    "throttled_ns": row["throttled"],
                    "preempted_ns": row["preempted"],
                    "queued_behind_ns": round(row["behind"]),
                    "gomaxprocs": round(row["ps"], 2),
                    "quota_cpus": quota,
                    "culprit": row["culprit"],
                },
            )
        )
    return found


def _by_quota(row: Mapping[str, Any], quota: float | None) -> str:
    if not quota:
        return "the CPU quota"
    ps = f"{row['ps']:.3g} Ps" + " on average" * row["varied"]
    return f"the CPU quota ({at_last(row['quotas'])}{quota:g} CPUs for {ps})"


def _by_others(row: Mapping[str, Any]) -> str:
    if 2 * row["own"] > row["preempted"]:
        return "its own other threads, which are more than there were CPUs for"
    return f"other tasks, most of all {row['culprit']}" if row["culprit"] else "other tasks"


def backlog(trace: Trace) -> list[Finding]:
    """More goroutines become runnable than the Ps can run."""
    origin = clock_ns(trace, "start_ns")
    rows = trace.sql(
        """
        WITH ticks AS (
          SELECT pid, ns, max(value) FILTER (WHERE name = 'gomaxprocs') AS ps,
            sum(value) FILTER (WHERE name IN ('runq_local', 'runq_global')) AS queued,
            max(value) FILTER (WHERE name = 'idle_ps') AS idle,
            max(value) FILTER (WHERE name = 'spinning_ms') AS spinning
          FROM gauges GROUP BY pid, ns HAVING ps > 0
        ), seconds AS (
          SELECT pid, (ns - $1) // $2 AS s, min(ns) AS first, max(ns) AS last,
            avg(queued / ps) AS queued,
            sum(ps) FILTER (queued >= $3 * ps) AS ps,
            sum(idle) FILTER (queued >= $3 * ps) AS idle,
            sum(spinning) FILTER (queued >= $3 * ps) AS spinning
          FROM ticks GROUP BY ALL HAVING count(*) >= 5
        )
        SELECT pid, min(first) AS first, max(last) AS last, max(queued) AS queued,
          coalesce(sum(idle) / sum(ps), 0) AS idle,
          coalesce(sum(spinning) / sum(ps), 0) AS spinning, count(*) AS seconds
        FROM seconds WHERE queued >= $3 GROUP BY pid HAVING count(*) >= 2
        """,
        [origin, _WINDOW_NS, BACKLOG],
    ).to_pylist()
    found = []
    for row in rows:
        waits = trace.sql(
            "WITH waited AS (SELECT reason, stack_runtime, wait_ns FROM waits "
            "WHERE kind = 'goroutine' AND pid = ? AND end_ns BETWEEN ? AND ?), "
            "stacks AS (SELECT reason, stack_runtime AS stack, sum(wait_ns) AS ns FROM waited "
            "WHERE stack IS NOT NULL GROUP BY ALL) "
            "SELECT reason, count(*) AS n, sum(wait_ns)::BIGINT AS total, "
            "quantile_disc(wait_ns, 0.99) AS p99, (SELECT arg_max(stack, (ns, stack)) "
            "FROM stacks s WHERE s.reason IS NOT DISTINCT FROM w.reason) AS stack "
            "FROM waited w GROUP BY reason ORDER BY total DESC, reason",
            [row["pid"], row["first"], row["last"]],
        ).to_pylist()
        top = waits[0] if waits else None
        network = next((w for w in waits if w["reason"] == "IO wait"), None)
        starved = bool(network and top and network["total"] >= 0.5 * top["total"])
        site = sites(trace, [top["stack"]] if top else []).get(top["stack"] if top else 0, UNKNOWN)
        what = (
            f"; most time went to waits after: {top['reason']}, as in {site.started}" if top else ""
        )
        found.append(
            Finding(
                Name.NETPOLLER_STARVATION if starved else Name.GOROUTINE_BACKLOG,
                row["pid"],
                row["first"] - origin,
                row["last"] - origin,
                f"fewer than {BACKLOG:.0f} goroutines queued per P, over a second",
                f"up to {row['queued']:.0f} goroutines were queued per P, on average over a "
                f"second, in {row['seconds']} seconds; meanwhile {row['idle']:.0%} of the Ps were "
                f"idle{what}",
                {
                    "queued_per_p": row["queued"],
                    "idle_share": row["idle"],
                    "spinning_per_p": row["spinning"],
                    "by_reason": [
                        {k: w[k] for k in ("reason", "n", "total", "p99")} for w in waits
                    ],
                },
            )
        )
    return found
