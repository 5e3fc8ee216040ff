"""Holds a trace against what the kernel's own scheduler statistics say about each thread.

Witness: `/proc/PID/task/TID/schedstat` (run delay and time slices) and the voluntary switches,
read by the threads themselves. Between two readings a thread has as many switch-ins as
switch-outs, and every wait lies wholly inside or outside, because it reads while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pyarrow as pa

from sltrace.model import Flag
from sltrace.trace.reader import Trace
from tests.support.loads import ThreadReport

_REAL_TIME = (1, 2, 6)  # FIFO, RR, DEADLINE
_PICK_NS, _PICK_SLOW_NS = 2_000, 14_000
_AT_ONCE_NS = 300_000
"""The kernel's run delay begins and ends at the run queue's clock, which is read before the next
task is picked; ours at the switch itself. Measured on 6.18, 2 virtual CPUs, from that clock to
the switch, medians: 0.4 us after a task that blocks, 5.9 us where a task is preempted, 6.2 us
where a real-time task takes over, 7 to 17 us where an idle CPU is left. A wakeup that preempts,
the idle task or another, also makes __schedule skip the clock's update (rq_clock_skip_update in
wakeup_preempt), so the kernel's delay of such a wait is 0 whatever comes in between: measured up
to 281 us, when an interrupt or the hypervisor took the CPU. Of a wait that got the CPU at once
the kernel may thus have all or nothing."""
_STOLEN_NS = 10_000_000
"""The most that the hypervisor is taken to keep a CPU for at once, between clock and switch."""


@dataclass(frozen=True)
class Compared:
    """One thread: what the kernel says and what the trace says, in ns.

    Attributes:
        ours: Sum of its run-queue and throttled waits.
        at_once: The part of it in waits after which it got the CPU at once: idle, or preempted.
        preempted: How often it was preempted.
        lag: How much earlier than ours the kernel's clock of those waits may have begun.
        asleep: What it slept before wakeups with Flag.MOVED_ASLEEP.
        interrupted: How long one interruption between the kernel's clock and a switch to it may
            have lasted; `lag_interrupted`, one before a switch from it.
        low: What of its time was missed at least; `high`, at most.
        rows: Switch-ins with a row.
        blocked: Rows of kind blocked.
        missed: Rows of `missed`.
    """

    thread: ThreadReport
    ours: int
    at_once: int
    preempted: int
    lag: int
    asleep: int
    interrupted: int
    lag_interrupted: int
    rows: int
    blocked: int
    low: int
    high: int
    missed: int

    @property
    def explained(self) -> bool:
        """Whether the run delay is what the trace has plus what it counts as missed.

        Within 1 % and 2 us a wait, but for waits that the kernel does not count, the time that it
        charges to a preempted task from the wakeup on, sleep that it counts as delay, and one
        interruption between its clock and the switch: of 300 us, or where the hypervisor took CPUs
        as long as the longest wait that may be one. All threads together must do without that.
        """
        return self._within(
            self.at_once + self.interrupted, self.lag + self.asleep + self.lag_interrupted
        )

    @property
    def explained_strictly(self) -> bool:
        """The same without those; 14 us for real-time threads, which always preempt."""
        return self._within(0, 0)

    def _within(self, uncounted: int, overcounted: int) -> bool:
        kernel = self.thread.run_delay_ns
        pick = _PICK_SLOW_NS if self.thread.policy in _REAL_TIME else _PICK_NS
        slack = 0.01 * kernel + pick * (self.thread.timeslices + 1)
        low, high = self.ours + self.low - uncounted, self.ours + self.high + overcounted
        return low - slack <= kernel <= high + slack

    @staticmethod
    def together(compared: Sequence[Compared]) -> Compared:
        """All threads as one."""
        first = compared[0]
        thread = replace(
            first.thread,
            policy=0,
            run_delay_ns=sum(c.thread.run_delay_ns for c in compared),
            timeslices=sum(c.thread.timeslices for c in compared),
        )
        names = [f.name for f in fields(Compared) if f.name != "thread"]
        return Compared(thread, **{n: sum(getattr(c, n) for c in compared) for n in names})

    @property
    def explained_without_interruption(self) -> bool:
        """`explained`, but for the interruption."""
        return self._within(self.at_once, self.lag + self.asleep)

    @property
    def switches_explained(self) -> bool:
        """Whether no switch-in lacks a row or a row in `missed`, and none is invented."""
        lacking = self.thread.timeslices - self.rows
        # A missed row in which the task's next wakeup was seen stands beside that wait's own row.
        return lacking == 0 if not self.missed else lacking >= -self.missed

    def __str__(self) -> str:
        t = self.thread
        return (
            f"{t.role} tid {t.tid} policy {t.policy}: kernel {t.run_delay_ns / 1e6:.3f} ms in "
            f"{t.timeslices} slices, {t.nvcsw}+{t.nivcsw} switches; ours {self.ours / 1e6:.3f} ms "
            f"in {self.rows} waits, {self.at_once / 1e6:.3f} ms of it got the CPU at once, "
            f"{self.preempted} preempted with {self.lag / 1e6:.3f} ms of lag, "
            f"{self.asleep / 1e6:.3f} ms slept after a move, "
            f"{self.interrupted / 1e6:.3f} and {self.lag_interrupted / 1e6:.3f} ms interrupted, "
            f"{self.blocked} blocked; missed {self.missed}: "
            f"{self.low / 1e6:.3f} to {self.high / 1e6:.3f} ms"
        )


_QUERY = f"""
    SELECT t.i, count(w.tid) AS n,
      coalesce(sum(w.wait_ns) FILTER (WHERE w.kind <> 'blocked'), 0)::BIGINT AS ours,
      coalesce(sum(w.wait_ns) FILTER (WHERE w.kind = 'runq_wakeup' AND w.culprit_others = 0 AND
        (w.culprit_tid = 0 OR w.wait_ns < {_AT_ONCE_NS})), 0)::BIGINT AS at_once,
      coalesce(max(w.wait_ns) FILTER (WHERE w.kind = 'runq_wakeup' AND w.culprit_others = 0
        AND w.culprit_tid <> 0), 0) AS longest,
      count(*) FILTER (WHERE w.kind = 'runq_preempt') AS preempted,
      coalesce(sum(w.wait_ns) FILTER (WHERE w.kind = 'blocked'
        AND w.flags & {int(Flag.MOVED_ASLEEP)} <> 0), 0)::BIGINT AS asleep,
      count(*) FILTER (WHERE w.kind = 'blocked') AS blocked,
      count(*) FILTER (WHERE w.kind IN ('runq_wakeup', 'runq_preempt')) AS queued,
      count(*) FILTER (WHERE w.kind = 'throttled' AND q.tid IS NULL) AS all_quota
    FROM threads t LEFT JOIN waits w
      ON w.tid = t.tid AND w.end_ns BETWEEN t.start_ns AND t.end_ns
    LEFT JOIN (SELECT DISTINCT tid, end_ns - wait_ns AS begin_ns FROM waits
        WHERE kind IN ('runq_wakeup', 'runq_preempt')) q
      ON q.tid = w.tid AND q.begin_ns = w.end_ns
    GROUP BY t.i ORDER BY t.i
"""

# Whoever preempts a thread is switched in at the very moment that it is switched out.
_LAG = f"""
    SELECT t.i, coalesce(sum({_PICK_SLOW_NS} + coalesce(p.wait_ns, 0)
        * (coalesce(p.wait_ns, 0) < {_AT_ONCE_NS})::INT), 0)::BIGINT AS lag,
      coalesce(max(p.wait_ns), 0) AS longest
    FROM threads t JOIN waits w ON w.tid = t.tid AND w.end_ns BETWEEN t.start_ns AND t.end_ns
      AND w.kind = 'runq_preempt'
    LEFT JOIN (SELECT cpu, end_ns, wait_ns FROM waits WHERE kind = 'runq_wakeup'
        AND culprit_others = 0) p
      ON p.cpu = w.prev_cpu AND p.end_ns = w.end_ns - w.wait_ns
    GROUP BY t.i
"""

# A hole is noticed when the task is switched out again, which may be after its last reading.
_MISSED = """
    SELECT t.i, count(m.tid) AS n, coalesce(sum(m.high_ns), 0)::BIGINT AS high,
      coalesce(sum(m.low_ns) FILTER (
        WHERE m.end_ns - m.high_ns > t.start_ns AND m.end_ns <= t.end_ns), 0)::BIGINT AS low
    FROM threads t LEFT JOIN missed m
      ON m.tid = t.tid AND m.end_ns BETWEEN t.start_ns AND t.end_ns + 100_000_000
    GROUP BY t.i ORDER BY t.i
"""


def compare(trace: Trace, threads: Sequence[ThreadReport]) -> list[Compared]:
    """Every thread beside its rows.

    Args:
        trace: A recording that lasted as long as the threads, at least.
        threads: Their readings.
    """
    trace.connection.register("threads", _as_table(threads))
    waits = trace.sql(_QUERY).to_pylist()
    missed = trace.sql(_MISSED).to_pylist()
    lags = {row["i"]: row for row in trace.sql(_LAG).to_pylist()}
    no_lag = {"lag": 0, "longest": 0}
    trace.connection.unregister("threads")
    most = _STOLEN_NS if stolen_in(trace) else 0
    return [
        Compared(
            thread,
            ours=row["ours"],
            at_once=row["at_once"],
            preempted=row["preempted"],
            asleep=row["asleep"],
            lag=(lag := lags.get(i, no_lag))["lag"],
            interrupted=max(_AT_ONCE_NS, min(row["longest"], most)),
            lag_interrupted=max(_AT_ONCE_NS, min(lag["longest"], most)),
            rows=row["queued"] + row["all_quota"],
            blocked=row["blocked"],
            low=gap["low"],
            high=gap["high"],
            missed=gap["n"],
        )
        for i, (thread, row, gap) in enumerate(zip(threads, waits, missed, strict=True))
    ]


def stolen_in(trace: Trace) -> int:
    """What the hypervisor took of all CPUs during a recording, in whole ticks of 10 ms."""
    return sum(times["steal"] for times in trace.meta["cpu_times"].values())


def slices_at_least(trace: Trace, thread: ThreadReport) -> int:
    """How often one that sleeps for 2 ms at most must have got the CPU, on a machine of any load.

    As often as it could between its waits.
    """
    lived = thread.end_ns - thread.start_ns - thread.run_delay_ns - stolen_in(trace)
    return max(20, lived // 2_500_000)


def rows_of(trace: Trace, thread: ThreadReport, columns: str = "*") -> list[dict[str, Any]]:
    """Rows of one thread between its readings, in order."""
    query = f"""SELECT {columns} FROM waits
        WHERE tid = ? AND end_ns BETWEEN ? AND ? ORDER BY end_ns"""
    found = trace.sql(query, (thread.tid, thread.start_ns, thread.end_ns))
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def counter(trace: Trace, name: str) -> int:
    """A counter over all CPUs and intervals."""
    query = "SELECT coalesce(sum(value), 0)::BIGINT AS n FROM counters WHERE name = ?"
    return int(trace.sql(query, (name,)).to_pylist()[0]["n"])


def summary(compared: Iterable[Compared]) -> str:
    """One line for people: how near the totals and the threads are."""
    compared = list(compared)
    ratios = [c.ours / c.thread.run_delay_ns for c in compared if c.thread.run_delay_ns > 1_000_000]
    kernel, ours = (
        sum(c.thread.run_delay_ns for c in compared),
        sum(c.ours for c in compared),
    )
    return (
        f"{len(compared)} threads: {ours / 1e9:.3f} s of {kernel / 1e9:.3f} s run delay, ratio "
        f"{ours / max(kernel, 1):.5f}, each {min(ratios, default=0):.4f} to "
        f"{max(ratios, default=0):.4f}; {sum(c.missed for c in compared)} waits missed"
    )


def _as_table(threads: Sequence[ThreadReport]) -> pa.Table:
    return pa.table(
        {
            "i": pa.array(range(len(threads)), pa.int32()),
            **{
                name: pa.array([getattr(t, name) for t in threads], pa.int64())
                for name in ("tid", "start_ns", "end_ns")
            },
        }
    )
