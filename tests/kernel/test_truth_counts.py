"""Numbers of switches, waits and histogram entries against the kernel's own counts."""

from __future__ import annotations

import time

import pytest

from tests.kernel.conftest import Contended
from tests.support.cgroups import cgroup
from tests.support.loads import load, run
from tests.support.recorder import Record
from tests.support.schedstat import compare, counter

pytestmark = [pytest.mark.bpf, pytest.mark.alone]

_QUIET = ("--sleepers", 20, "--groups", 1, "--churn-us", 20_000)


def test_a_row_for_every_time_slice(contended: Contended) -> None:
    """schedstat's third number: how often the thread got a CPU."""
    compared = compare(contended.trace, contended.outcome.threads)
    for c in compared:
        assert c.thread.timeslices == c.thread.nvcsw + c.thread.nivcsw, str(c)
    wrong = [c for c in compared if not c.switches_explained]
    assert not wrong, "\n".join(map(str, wrong))
    whole = [c for c in compared if not c.missed]
    # How many threads lack an event is the noise of the machine: 60 to 140 of 625 (measured).
    assert len(whole) >= 200
    assert all(c.rows == c.thread.timeslices for c in whole)
    # Every voluntary switch is a block, and nothing else is.
    assert [str(c) for c in whole if c.blocked != c.thread.nvcsw] == []
    assert sum(c.blocked for c in whole) > 1000


def test_switches_add_up_to_those_of_the_kernel(contended: Contended) -> None:
    """`ctxt` of /proc/stat is of all CPUs; the recording's edges lie between two readings of it."""
    first, attached, told, gone = contended.ctxt
    seen = counter(contended.trace, "switches")
    counted = seen + counter(contended.trace, "switches_lost")
    print(
        f"\nswitches: {counted} counted, {counted - seen} of them unseen, kernel {told - attached}"
    )
    assert told - attached <= counted <= gone - first
    assert told - attached > 10_000


def test_the_recorder_is_not_woken_for_what_it_records(contended: Contended) -> None:
    """A wakeup for each record would be half of all switches, and recorded in turn."""
    mine = contended.trace.sql(
        "SELECT count(*) AS n FROM waits WHERE pid = ? AND kind = 'runq_wakeup'",
        (contended.recorder_pid,),
    ).to_pylist()[0]["n"]
    assert 0 < mine < 0.02 * counter(contended.trace, "records")


def test_holes_are_where_switches_were_lost(contended: Contended) -> None:
    trace = contended.trace
    holes, lost = counter(trace, "holes"), counter(trace, "switches_lost")
    rows = trace.sql("SELECT count(*) AS n FROM missed WHERE cause = 'hole'").to_pylist()[0]["n"]
    assert rows <= holes <= lost
    assert trace.sql("SELECT * FROM missed WHERE low_ns < 0 OR high_ns < low_ns").num_rows == 0
    unstamped = trace.sql("SELECT count(*) AS n FROM missed WHERE cause = 'unstamped'")
    # The first reading of the counters is a moment after the rings were emptied.
    assert 0 <= unstamped.to_pylist()[0]["n"] - counter(trace, "unstamped") <= 2


def test_no_two_waits_of_a_thread_overlap(contended: Contended) -> None:
    """Parts of one stretch off the CPU follow each other without a gap or an overlap."""
    overlaps = contended.trace.sql(
        """SELECT * FROM (
             SELECT tid, kind, end_ns, wait_ns,
               lag(end_ns) OVER (PARTITION BY tid ORDER BY end_ns, wait_ns DESC) AS before
             FROM waits)
           WHERE end_ns - wait_ns < before LIMIT 5"""
    ).to_pylist()
    assert overlaps == []


def test_histograms_hold_exactly_what_ended_in_a_recording(record: Record) -> None:
    """As one begins, threads wait for a CPU that were blocked before: their sleep is in neither."""
    traces = []
    with cgroup("counts", cpus=0.8) as group:
        group.allow_real_time(10_000)
        with load("contend", "--duration", 60, *_QUIET, within=group):
            for _ in range(3):
                with record("--buffer", "32M") as recording:
                    time.sleep(0.3)
                traces.append(recording.trace)
    for trace in traces:
        assert counter(trace, "ring_full") == counter(trace, "state_lost") == 0
        rows, sums = (
            trace.sql(
                f"SELECT kind, {n}::BIGINT AS n, sum({ns})::BIGINT AS ns FROM {table} "
                "GROUP BY kind ORDER BY kind"
            ).to_pylist()
            for table, n, ns in (
                ("waits", "count(*)", "wait_ns"),
                ("histogram_sums", "sum(count)", "sum_ns"),
            )
        )
        assert rows == sums
        assert {"blocked", "runq_wakeup", "runq_preempt"} <= {r["kind"] for r in rows}


def test_histograms_hold_exactly_the_rows(record: Record) -> None:
    """Of a cgroup whose load began and ended while it was recorded, so that both have all."""
    # Rings that a reader who gets no CPU for long does not let run over.
    with cgroup("counts", cpus=0.8) as group, record("--buffer", "32M") as recording:
        group.allow_real_time(10_000)
        run("contend", "--duration", 2, *_QUIET, within=group)
        group_id = group.id
    trace = recording.trace
    assert counter(trace, "ring_full") == counter(trace, "state_lost") == 0
    by = "policy, kind"
    rows = trace.sql(
        f"""SELECT {by}, count(*) AS n, sum(wait_ns)::BIGINT AS ns FROM waits
            WHERE cgroup_id = ? GROUP BY ALL ORDER BY ALL""",
        (group_id,),
    ).to_pylist()
    sums = trace.sql(
        f"""SELECT {by}, sum(count)::BIGINT AS n, sum(sum_ns)::BIGINT AS ns FROM histogram_sums
            WHERE cgroup_id = ? GROUP BY ALL ORDER BY {by}""",
        (group_id,),
    ).to_pylist()
    assert sorted(map(repr, rows)) == sorted(map(repr, sums))
    assert {r["kind"] for r in rows} == {"runq_wakeup", "runq_preempt", "throttled", "blocked"}
    assert {"OTHER", "BATCH", "IDLE"} <= {r["policy"] for r in rows}
    assert sum(r["n"] for r in rows) > 2000
    wrong = trace.sql(
        """WITH h AS (SELECT kind, low_ns, sum(count) AS n,
                 lead(low_ns) OVER (PARTITION BY kind ORDER BY low_ns) AS next
               FROM histograms WHERE cgroup_id = ? GROUP BY kind, low_ns),
             r AS (SELECT h.kind, h.low_ns, any_value(h.n) AS n, count(w.kind) AS rows
               FROM h LEFT JOIN waits w ON w.cgroup_id = ? AND w.kind = h.kind
                 AND w.wait_ns >= h.low_ns AND (h.next IS NULL OR w.wait_ns < h.next)
               GROUP BY h.kind, h.low_ns)
           SELECT * FROM r WHERE n <> rows""",
        (group_id, group_id),
    ).to_pylist()
    assert wrong == []
