"""The figures behind `sltrace python`: who held the GIL, who waited, loops, locks, collections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sltrace.analysis.quotas import longest_held_by

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

PLACE = (
    "f.name || CASE WHEN f.module <> '' THEN ' (' || f.module || "
    "coalesce(':' || f.line, '') || ')' ELSE '' END"
)
"""A row of `frames` as users read it."""

_OF_LIBRARY = r"(^|/(python[0-9.]+(\.zip)?|Lib)/)"
"""Where the file of a module of the standard library begins. By its name alone it may be another's:
Redis' client has its pool in a `connection.py`, and services have a `queue.py`."""

IS_SYNCHRONIZING = (
    rf"coalesce(regexp_matches(f.file, '{_OF_LIBRARY}(threading|queue)\.py$')"
    " OR (f.module = 'queue.py' AND f.name IN ('Queue.get', 'get')), false)"
)
"""Of a row `f` of `frames`: it is of what the standard library builds on locks, or of a queue like
that, as SQLAlchemy's."""

IS_IDLE = (
    rf"coalesce(regexp_matches(f.file, '{_OF_LIBRARY}(threading|queue|weakref)\.py$"
    r"|(^|/)(concurrent/futures/(thread|_base)"
    r"|(multiprocessing|multiprocess|billiard)/(pool|synchronize|connection))\.py$'), false)"
)
"""Of a row `f` of `frames`: it is of a library's file in which idle workers wait for work."""

_FRAME = (
    f"SELECT k.stack_id, any_value({PLACE}) AS place, any_value({IS_IDLE}) AS idle "
    "FROM stacks k JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
    "WHERE k.space = 'python' GROUP BY k.stack_id"
)
"""The innermost Python frame of each stack."""

_OF_PYTHON = "pid IN (SELECT pid FROM targets WHERE runtime = 'python' AND level IS NOT NULL)"

SLOW_NS = 50_000_000
"""An iteration of this length is felt: whatever else is on the loop is late by as much."""

_OWN = "(wait_ns - coalesce(runq_ns, 0) - coalesce(gil_ns, 0))"
"""What an iteration took itself, without what it waited for a CPU and for the GIL."""

_IS_LOOP = r"regexp_matches(f.file, '(^|/)asyncio/(base_events|events|runners)\.py$')"
"""Files of asyncio that are among the callers of all that runs on one of its loops. By their
folder: a service may well have an `events.py` of its own, and gevent has one."""

_ON_LOOP = f"""
    SELECT DISTINCT k.stack_id FROM stacks k
    JOIN frames f ON f.pid = k.pid AND list_contains(k.addresses, f.address)
    WHERE k.space = 'python' AND {_IS_LOOP}
"""

_WITHIN = """
  (stack_runtime IS NULL OR stack_runtime IN (FROM on_loop)
    OR (pid, tid) NOT IN (FROM loop_threads))
"""
"""Of a thread that was seen in asyncio's loop: what it does outside of it is nothing of the loop's.
Programs run a loop for a moment, again and again (`asyncio.run` within what is synchronous)."""

_SERVERS_IN_C = r"regexp_matches(path, '(^|/)pyuwsgi\.[^/]*$')"
"""Extension modules that wait for requests in C, within the call of Python that started the server.
Their file tells: from the stacks they look like uvloop, which is a loop."""

_WORKERS = f"""
  SELECT w.pid, w.tid FROM waits w
  LEFT JOIN places p ON p.stack_id = w.stack_runtime
  LEFT JOIN ({_ON_LOOP}) on_loop ON on_loop.stack_id = w.stack_runtime
  WHERE w.kind = 'blocked' AND w.reason IN ('lock', 'poll') GROUP BY w.pid, w.tid
  HAVING coalesce(sum(w.wait_ns) FILTER (w.reason = 'lock' AND p.idle
      AND on_loop.stack_id IS NULL), 0)
    > coalesce(sum(w.wait_ns) FILTER (w.reason = 'poll'), 0)
  OR (count_if(w.reason = 'poll') > 0
    AND count(w.stack_runtime) FILTER (w.reason = 'poll') = 0)
  OR w.pid IN (SELECT pid FROM mappings WHERE {_SERVERS_IN_C})
"""
"""Threads that sleep longer for want of work than in epoll: those of gunicorn ask it of one
connection now and then, and are no event loops. Nor are those of a server in C that wait in epoll
outside of all Python, for the next request: what it is answered with may block, as in uWSGI."""


@dataclass(frozen=True)
class Process:
    """A process that was looked into, or could not be."""

    pid: int
    version: str
    exe: str
    level: int | None
    why: str


@dataclass(frozen=True)
class GilThread:
    """A thread and the GIL.

    Attributes:
        waited_ns: How long it waited for it, in `waits` waits; p99 and the longest of them.
        runq_ns: Part of that in which it had been woken and had no CPU.
        held_ns: How long others waited while it held the GIL: seen when they began to wait, and
            every 5 ms.
        holding: The place in which it was for most of that.
    """

    pid: int
    tid: int
    comm: str
    waits: int
    waited_ns: int
    p99_ns: int
    longest_ns: int
    runq_ns: int
    held_ns: int
    holding: str | None


@dataclass(frozen=True)
class GilTrace:
    """GIL waits of one OpenTelemetry trace."""

    trace_id: str
    waits: int
    waited_ns: int


@dataclass(frozen=True)
class Loop:
    """An event loop.

    Attributes:
        exact: Its system calls were seen; otherwise iterations that did not sleep in between are
            one, and all figures are upper bounds.
        slow_ns: Total of what iterations took themselves, without waits for a CPU or the GIL, where
            that is SLOW_NS and more; `place` is where the thread was last seen in these, and
            `task` which asyncio task it was then.
        blocked_ns: How long the thread slept for something else than events or the GIL; the
            longest of these sleeps; place, length and task of the longest whose place is known.
    """

    pid: int
    tid: int
    comm: str
    exact: bool
    iterations: int
    busy_ns: int
    p50_ns: int
    p99_ns: int
    longest_ns: int
    gil_ns: int
    runq_ns: int
    slow_ns: int
    place: str | None
    task: str | None
    blocked_ns: int
    blocked_longest_ns: int
    blocked_in: str | None
    blocked_in_ns: int
    blocked_task: str | None


@dataclass(frozen=True)
class Collector:
    """Garbage collections of a process.

    Attributes:
        total_ns: How long they took, added up.
        under_way_ns: How long at least one was under way: each interpreter has its own.
    """

    pid: int
    collections: int
    total_ns: int
    under_way_ns: int
    longest_ns: int


@dataclass(frozen=True)
class Quota:
    """A process that ran out of CPU quota.

    Attributes:
        cgroup: Whose quota it waited for longest: its own cgroup's, or that of one above it.
        quota_us: The last one of that, in each `period_us`; None if unknown.
        quotas: How many different ones there were.
    """

    pid: int
    cgroup: str
    threads: int
    waited_ns: int
    quota_us: int | None
    period_us: int | None
    quotas: int


def processes(trace: Trace) -> list[Process]:
    """Python processes, those looked into first."""
    rows = trace.sql(
        "SELECT pid, coalesce(version, '') AS version, coalesce(exe, '') AS exe, level, "
        "coalesce(why, '') AS why FROM targets WHERE runtime = 'python' "
        "ORDER BY level IS NULL, pid, from_ns"
    )
    return [Process(**r) for r in rows.to_pylist()]


def gil_threads(trace: Trace, limit: int) -> list[GilThread]:
    """Threads by how long others waited for them, then by how long they waited for the GIL."""
    rows = trace.sql(
        f"""
        WITH places AS ({_FRAME}),
        waited AS (
          SELECT pid, tid, mode(comm) AS comm, count(*) AS waits, sum(wait_ns)::BIGINT AS waited_ns,
            quantile_disc(wait_ns, 0.99) AS p99_ns, max(wait_ns) AS longest_ns,
            coalesce(sum(runq_ns), 0)::BIGINT AS runq_ns
          FROM waits WHERE kind = 'gil' GROUP BY pid, tid
        ),
        by_place AS (
          SELECT culprit_pid AS pid, culprit_tid AS tid, mode(culprit_comm) AS comm, place,
            sum(culprit_ns)::BIGINT AS ns
          FROM waits LEFT JOIN places ON stack_id = culprit_stack
          WHERE kind = 'gil' AND culprit_tid IS NOT NULL GROUP BY culprit_pid, culprit_tid, place
        ),
        held AS (
          SELECT pid, tid, mode(comm) AS comm, sum(ns)::BIGINT AS held_ns,
            arg_max(place, ns) FILTER (place IS NOT NULL) AS holding
          FROM by_place GROUP BY pid, tid
        )
        SELECT coalesce(w.pid, h.pid) AS pid, coalesce(w.tid, h.tid) AS tid,
          coalesce(w.comm, h.comm, '') AS comm, coalesce(waits, 0) AS waits,
          coalesce(waited_ns, 0) AS waited_ns, coalesce(p99_ns, 0) AS p99_ns,
          coalesce(longest_ns, 0) AS longest_ns, coalesce(runq_ns, 0) AS runq_ns,
          coalesce(held_ns, 0) AS held_ns, holding
        FROM waited w FULL JOIN held h ON w.pid = h.pid AND w.tid = h.tid
        ORDER BY held_ns DESC, waited_ns DESC, 1, 2 LIMIT ?
        """,
        [limit],
    )
    return [GilThread(**r) for r in rows.to_pylist()]


def gil_traces(trace: Trace, limit: int) -> list[GilTrace]:
    """Traces that waited longest for the GIL."""
    rows = trace.sql(
        "SELECT trace_id, count(*) AS waits, sum(wait_ns)::BIGINT AS waited_ns FROM waits "
        "WHERE kind = 'gil' AND trace_id IS NOT NULL GROUP BY trace_id "
        "ORDER BY waited_ns DESC, trace_id LIMIT ?",
        [limit],
    )
    return [GilTrace(**r) for r in rows.to_pylist()]


def loops(trace: Trace, limit: int) -> list[Loop]:
    """Event loops, the one with the longest iteration first; without idle workers."""
    rows = trace.sql(
        f"""
        WITH places AS ({_FRAME}), workers AS ({_WORKERS}), on_loop AS ({_ON_LOOP}),
        loop_threads AS (
          SELECT DISTINCT pid, tid FROM waits WHERE stack_runtime IN (FROM on_loop)
        ),
        iterations AS (
          SELECT pid, tid, mode(comm) AS comm, bool_and(reason = 'iteration') AS exact,
            count(*) AS iterations, sum(wait_ns)::BIGINT AS busy_ns,
            quantile_disc(wait_ns, 0.5) AS p50_ns, quantile_disc(wait_ns, 0.99) AS p99_ns,
            max(wait_ns) AS longest_ns, coalesce(sum(gil_ns), 0)::BIGINT AS gil_ns,
            coalesce(sum(runq_ns), 0)::BIGINT AS runq_ns,
            coalesce(sum({_OWN}) FILTER ({_OWN} >= {SLOW_NS}), 0)::BIGINT AS slow_ns
          FROM waits ANTI JOIN workers USING (pid, tid)
          WHERE kind = 'loop' AND {_WITHIN} GROUP BY pid, tid
        ),
        slow_places AS (
          SELECT pid, tid, place, mode(task) AS task, sum(wait_ns) AS ns FROM waits
          JOIN places ON stack_id = stack_runtime
          WHERE kind = 'loop' AND {_OWN} >= {SLOW_NS} AND {_WITHIN} GROUP BY pid, tid, place
        ),
        slow AS (
          SELECT pid, tid, arg_max(place, ns) AS place, arg_max_null(task, ns) AS task
          FROM slow_places GROUP BY pid, tid
        ),
        sleeps AS (
          SELECT pid, tid, place, task, wait_ns FROM waits
          LEFT JOIN places ON stack_id = stack_runtime
          WHERE kind = 'blocked' AND reason IN ('sleep', 'io', 'lock', 'process', 'signal')
            AND {_WITHIN}
        ),
        blocked AS (
          SELECT pid, tid, sum(wait_ns)::BIGINT AS blocked_ns, max(wait_ns) AS blocked_longest_ns,
            arg_max(place, (wait_ns, place)) FILTER (place IS NOT NULL) AS blocked_in,
            max(wait_ns) FILTER (place IS NOT NULL) AS blocked_in_ns,
            arg_max_null(task, (wait_ns, place, coalesce(task, '')))
              FILTER (place IS NOT NULL) AS blocked_task
          FROM sleeps GROUP BY pid, tid
        )
        SELECT i.*, place, task, coalesce(blocked_ns, 0) AS blocked_ns,
          coalesce(blocked_longest_ns, 0) AS blocked_longest_ns, blocked_in,
          coalesce(blocked_in_ns, 0) AS blocked_in_ns, blocked_task
        FROM iterations i LEFT JOIN slow USING (pid, tid) LEFT JOIN blocked USING (pid, tid)
        ORDER BY longest_ns DESC, pid, tid LIMIT ?
        """,
        [limit],
    )
    return [Loop(**r) for r in rows.to_pylist()]


def collectors(trace: Trace) -> list[Collector]:
    """Garbage collections by process."""
    # What each adds lies beyond all that began before it.
    rows = trace.sql(
        """
        WITH spans AS (
          SELECT pid, wait_ns, end_ns, end_ns - wait_ns AS began_ns FROM waits
          WHERE kind = 'stw' AND reason = 'gc'
        ), reach AS (
          SELECT *, coalesce(max(end_ns) OVER before, began_ns) AS reached_ns FROM spans
          WINDOW before AS (PARTITION BY pid ORDER BY began_ns, end_ns
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        )
        SELECT pid, count(*) AS collections, sum(wait_ns)::BIGINT AS total_ns,
          coalesce(sum(greatest(end_ns - greatest(began_ns, reached_ns), 0)), 0)::BIGINT
            AS under_way_ns,
          max(wait_ns) AS longest_ns
        FROM reach GROUP BY pid ORDER BY total_ns DESC, pid
        """
    )
    return [Collector(**r) for r in rows.to_pylist()]


def quotas(trace: Trace) -> list[Quota]:
    """Python processes that waited for CPU quota."""
    rows = trace.sql(
        f"""
        WITH waited AS (
          SELECT pid, count(DISTINCT tid) AS threads, sum(wait_ns)::BIGINT AS waited_ns
          FROM waits WHERE kind = 'throttled' AND {_OF_PYTHON} GROUP BY pid
        )
        SELECT pid, coalesce(whose, '') AS cgroup, threads, waited_ns, quota.quota_us,
          quota.period_us, quotas
        FROM waited JOIN ({longest_held_by(_OF_PYTHON)}) USING (pid)
        ORDER BY waited_ns DESC, pid
        """
    )
    return [Quota(**r) for r in rows.to_pylist()]
