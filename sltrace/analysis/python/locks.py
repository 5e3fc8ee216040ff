"""Where Python threads wait for locks, and which of that is idle workers that wait for work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sltrace.analysis.python.tables import IS_IDLE, IS_SYNCHRONIZING, PLACE

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_HANDED_ON = 0.6
"""Of the waits for a lock: whoever holds it has mostly waited for it at the same place, or, of a
pool, does the same work: who gives something back and takes it again at once never waits. A
`queue.SimpleQueue`, which has no frame of its own, ends them by those that put something in; up to
3.12 whoever gets that wakes another for nothing, which makes half of the waits look handed on."""

_IN_TURN = 1 / 3
"""Of the waits for a lock: whoever ends one was woken last of all, or has ended the last one, too,
as only one thread has the lock. Measured: 0.94 and more; where workers feed their own SimpleQueue,
0.2 and less, as several are at work at once. Two locks at one place make it a half."""

_BACK_NS = 50_000
_BACK_AT_ONCE = 0.9
"""Of the waits for a lock: whoever ended one waits there again so soon after. It had nothing else
to do than to hand something over, a job that goes round: nobody was kept from anything. Measured:
0.96 and more (8 to 20 us); 0.7 and less of threads that do all they do with a lock up to 3.13, and
0 where they do anything else that takes longer. Locks of 3.14 are handed over themselves, so such
threads are not told from that."""

_ON_A_JOB = 0.5
"""Of the waits at a queue or a condition: in a span, or called by a function in which the thread
waits for its work. It is a pool, then; workers that feed their own queue, whose waits look handed
on as well, wait there for nothing else."""
_POOLS = ("queue", "condition")

_THROUGH = """
  CASE WHEN t.name IN ('Semaphore.acquire', 'acquire') THEN 'semaphore'
    WHEN t.name IN ('Queue.get', 'get') THEN 'queue'
    WHEN t.name IN ('Condition.wait', 'Condition.wait_for', 'wait_for')
      OR (t.name = 'wait' AND t.depth = 1) THEN 'condition'
    ELSE coalesce(t.name, '') END
"""
"""What a place called of what is built on locks: semaphores, queues and conditions may be pools,
all else (events, barriers ...) is no resource. By the names of functions from 3.11 on, and before.
"""


@dataclass(frozen=True)
class Lock:
    """A place in the code where threads wait for a lock (not for the GIL).

    Attributes:
        through: `semaphore`, `queue`, `condition`, or what else of the standard library the place
            called; empty for a lock.
        idle: Workers that have nothing to do, by that or by who ends their waits: other threads
            than those that wait there, or such as do nothing else.
    """

    pid: int
    place: str
    through: str
    idle: bool
    threads: int
    waits: int
    waited_ns: int
    longest_ns: int


def locks(trace: Trace, limit: int) -> list[Lock]:
    """Places where threads wait for locks, most time first; idle workers last."""
    rows = trace.sql(
        f"""
        WITH slept AS (
          SELECT pid, tid, waker_tid, stack_runtime AS stack_id, trace_id, wait_ns, end_ns
          FROM waits
          WHERE kind = 'blocked' AND reason = 'lock' AND stack_runtime IS NOT NULL
        ), walked AS (
          SELECT stack_id, unnest(addresses) AS address, generate_subscripts(addresses, 1) AS depth,
            pid FROM stacks
          WHERE space = 'python' AND stack_id IN (SELECT stack_id FROM slept)
        ), framed AS (
          SELECT stack_id, depth, f.name, f.file, {PLACE} AS place,
            {IS_SYNCHRONIZING} AS synchronizing, {IS_IDLE} AS idle
          FROM walked JOIN frames f USING (pid, address)
        ), called AS (
          SELECT stack_id,
            coalesce(min(depth) FILTER (NOT synchronizing), 1) AS depth
          FROM framed GROUP BY stack_id
        ), places AS (
          SELECT stack_id, any_value(depth) AS depth, any_value(f.place) AS place,
            any_value(f.name) AS name, any_value(f.file) AS file, any_value(f.idle) AS idle,
            any_value({_THROUGH}) AS through
          FROM called JOIN framed f USING (stack_id, depth)
          LEFT JOIN framed t ON t.stack_id = f.stack_id AND t.depth = f.depth - 1
          GROUP BY stack_id
        ), for_work AS (
          SELECT DISTINCT pid, tid, name, file FROM slept JOIN places USING (stack_id)
          WHERE through <> '' OR idle
        ), jobs AS (
          SELECT DISTINCT s.pid, s.tid, s.stack_id, p.place, p.through, f.name, f.file
          FROM slept s JOIN places p USING (stack_id)
          JOIN framed f ON f.stack_id = s.stack_id AND f.depth > p.depth
            AND (f.name, f.file) <> (p.name, p.file)
          SEMI JOIN for_work w
            ON w.pid = s.pid AND w.tid = s.tid AND w.name = f.name AND w.file = f.file
          WHERE p.through IN {("semaphore", *_POOLS)}
        ), on_jobs AS (
          SELECT DISTINCT tid, stack_id, true AS on_a_job FROM jobs
        ), waited AS (
          SELECT pid, tid, waker_tid, place, through, idle, wait_ns, end_ns,
            coalesce(on_a_job, trace_id IS NOT NULL) AS on_a_job,
            waker_tid IN (lag(tid) OVER turns, lag(waker_tid) OVER turns) AS in_turn
          FROM slept JOIN places USING (stack_id) LEFT JOIN on_jobs USING (tid, stack_id)
          WINDOW turns AS (PARTITION BY pid, place, through ORDER BY end_ns)
        ), followed AS (
          SELECT w.*, n.start_ns - w.end_ns < {_BACK_NS} AS back_at_once
          FROM waited w ASOF LEFT JOIN (
            SELECT pid, place, through, tid, end_ns - wait_ns AS start_ns FROM waited
          ) n ON n.pid = w.pid AND n.place = w.place AND n.through = w.through
            AND n.tid = w.waker_tid AND n.start_ns >= w.end_ns
        ), peers AS (
          SELECT pid, place, through, tid AS waker_tid, true AS handed_on FROM waited
          UNION
          SELECT pid, place, through, w.tid, true FROM jobs JOIN for_work w USING (pid, name, file)
        )
        SELECT pid, place, through,
          bool_or(idle)
            OR count(handed_on) < {_HANDED_ON} * count(waker_tid)
            OR NOT ((through = '' AND count_if(in_turn) >= {_IN_TURN} * count(waker_tid)
                AND count_if(back_at_once) < {_BACK_AT_ONCE} * count(waker_tid))
              OR through = 'semaphore'
              OR (through IN {_POOLS} AND count_if(on_a_job) >= {_ON_A_JOB} * count(*))) AS idle,
          count(DISTINCT tid) AS threads, count(*) AS waits, sum(wait_ns)::BIGINT AS waited_ns,
          max(wait_ns) AS longest_ns
        FROM followed LEFT JOIN peers USING (pid, place, through, waker_tid)
        GROUP BY pid, place, through ORDER BY idle, waited_ns DESC, pid, place, through LIMIT ?
        """,
        [limit],
    )
    return [Lock(**r) for r in rows.to_pylist()]
