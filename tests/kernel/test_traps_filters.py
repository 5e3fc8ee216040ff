"""Filters test who waited, never who happens to run; histograms are filtered alike.

Several recorders look at one load at the same time, each with its own filter, so that each can be
compared with the one that has none.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from sltrace.trace.reader import Trace
from tests.support.cgroups import cgroup
from tests.support.loads import (
    Outcome,
    ThreadReport,
    allowed_cpus,
    load,
    nested_births,
    run,
)
from tests.support.programs import program
from tests.support.recorder import Record, sltrace
from tests.support.schedstat import compare, counter, rows_of, slices_at_least

pytestmark = [pytest.mark.bpf, pytest.mark.alone]

_MIN_NS = 200_000


@dataclass(frozen=True)
class Filtered:
    """A victim in a cgroup beside a hog outside it, as recorded by every filter."""

    traces: dict[str, Trace]
    victim: ThreadReport
    hog: ThreadReport
    cgroup: str
    cgroup_id: int

    def rows(self, name: str, thread: ThreadReport) -> list[dict[str, Any]]:
        """Run-queue waits of a thread, as one recorder saw them while the victim lived."""
        query = """SELECT * FROM waits WHERE tid = ? AND end_ns BETWEEN ? AND ?
            AND kind IN ('runq_wakeup', 'runq_preempt')"""
        window = (self.victim.start_ns, self.victim.end_ns)
        return self.traces[name].sql(query, (thread.tid, *window)).to_pylist()

    def tids(self, name: str) -> set[int]:
        """Everybody who waited according to one recorder."""
        rows = self.traces[name].sql("SELECT DISTINCT tid FROM waits").to_pylist()
        return {int(r["tid"]) for r in rows}

    def missed(self, *threads: ThreadReport) -> int:
        """Waits of these that some recorder did not see whole."""
        seen = [c for t in self.traces.values() for c in compare(t, threads)]
        return sum(c.missed for c in seen)


@pytest.fixture(scope="module")
def filtered(record_once: Record) -> Iterator[Filtered]:
    cpu = allowed_cpus()[-1]
    with cgroup("victims") as inside, cgroup("hogs") as beside, ExitStack() as stack:
        # Ten recorders want CPUs, too.
        for group in (inside, beside):
            group.weigh(100)
        options = {
            "all": (),
            "cgroup": ("--cgroup", inside.name),
            "histograms": ("--histogram-only", "--cgroup", inside.name),
            "comm": ("--comm", "thevictim"),
            "cpu": ("--cpu", cpu),
            "other_cpu": ("--cpu", next((c for c in allowed_cpus() if c != cpu), cpu)),
            "policy": ("--policy", "BATCH"),
            "min": ("--min-latency", f"{_MIN_NS}ns"),
            "no_blocked": ("--no-blocked", "--comm", "thevictim"),
            "both": ("--cgroup", inside.name, "--policy", "FIFO"),
        }
        recordings = {name: stack.enter_context(record_once(*o)) for name, o in options.items()}
        with load("hog", "--duration", 20, "--cpu", cpu, within=beside) as hog:
            victim = ("--cpu", cpu, "--policy", "batch", "--comm", "thevictim")
            outcome = run("victim", "--duration", 2, *victim, within=inside)
            hog.stop()
            neighbour = hog.outcome()
        name, number = inside.name, inside.id
        stack.close()
        traces = {key: recording.trace for key, recording in recordings.items()}
        yield Filtered(traces, outcome.one("victim"), neighbour.one("hog"), name, number)


def test_the_victims_cgroup_beside_a_hog_outside(filtered: Filtered) -> None:
    """libbpf-tools' runqlat -c shows nothing here: it tests the task that runs."""
    victim = filtered.victim
    trace = filtered.traces["cgroup"]
    (c,) = compare(trace, [victim])
    assert victim.timeslices > slices_at_least(trace, victim), str(c)
    assert c.switches_explained, str(c)
    assert c.explained, str(c)
    assert filtered.tids("cgroup") == {victim.tid}
    rows = filtered.rows("cgroup", victim)
    assert {(r["cgroup"], r["cgroup_id"]) for r in rows} == {(filtered.cgroup, filtered.cgroup_id)}
    # The hog is outside, yet blamed as by the recorder that looks at everybody. Its share is not
    # ours to fix: ten recorders are the other culprits.
    inside, everybody = (_blamed(filtered, name) for name in ("cgroup", "all"))
    hog = filtered.hog.tid
    assert inside[hog] > 0, inside
    assert inside[hog] == pytest.approx(everybody[hog], rel=0.05), (inside, everybody)
    assert victim.tid not in inside


def test_all_see_the_same_waits(filtered: Filtered) -> None:
    whole = len(filtered.rows("all", filtered.victim))
    slack = filtered.missed(filtered.victim)
    for name in ("cgroup", "comm", "cpu", "policy", "no_blocked"):
        assert abs(len(filtered.rows(name, filtered.victim)) - whole) <= slack, name
    assert whole > 200


def test_comm(filtered: Filtered) -> None:
    assert filtered.tids("comm") == {filtered.victim.tid}


def test_cpu(filtered: Filtered) -> None:
    for name, wanted in (("cpu", True), ("other_cpu", False)):
        cpus = {r["cpu"] for r in filtered.traces[name].table("waits", ["cpu"]).to_pylist()}
        assert (allowed_cpus()[-1] in cpus) is wanted
        assert len(cpus) == 1
    if len(allowed_cpus()) > 1:
        assert filtered.rows("other_cpu", filtered.victim) == []
    slack = filtered.missed(filtered.hog)
    seen = [len(filtered.rows(name, filtered.hog)) for name in ("all", "cpu")]
    assert abs(seen[0] - seen[1]) <= slack


def test_policy(filtered: Filtered) -> None:
    trace = filtered.traces["policy"]
    assert trace.sql("SELECT DISTINCT policy FROM waits").to_pylist() == [{"policy": "BATCH"}]
    assert filtered.rows("policy", filtered.hog) == []
    kept = trace.sql("SELECT DISTINCT policy FROM histogram_sums").to_pylist()
    assert kept == [{"policy": "BATCH"}]


def test_filters_of_different_kinds_must_all_match(filtered: Filtered) -> None:
    assert filtered.tids("both") == set()
    assert filtered.traces["both"].table("histogram_sums").num_rows == 0
    assert filtered.traces["both"].table("missed").num_rows == 0


def test_min_latency_keeps_histograms_whole(filtered: Filtered) -> None:
    trace = filtered.traces["min"]
    assert trace.sql("SELECT * FROM waits WHERE wait_ns < ?", (_MIN_NS,)).num_rows == 0
    assert counter(trace, "below_min") > 100
    # A wait at the threshold may be on either side for each recorder.
    long = sum(r["wait_ns"] >= _MIN_NS for r in filtered.rows("all", filtered.victim))
    kept = len(filtered.rows("min", filtered.victim))
    assert abs(kept - long) <= 0.05 * long + 5 + filtered.missed(filtered.victim)
    counted = _in_histograms(trace, filtered.cgroup_id)
    assert abs(counted - filtered.victim.timeslices) <= 5 + filtered.missed(filtered.victim)


def test_histogram_only(filtered: Filtered) -> None:
    trace = filtered.traces["histograms"]
    assert trace.meta["histogram_only"] is True
    assert trace.table("waits", ["tid"]).num_rows == 0
    groups = trace.sql("SELECT DISTINCT cgroup_id, cgroup FROM histogram_sums").to_pylist()
    assert groups == [{"cgroup_id": filtered.cgroup_id, "cgroup": filtered.cgroup}]
    counted = _in_histograms(trace, filtered.cgroup_id)
    assert abs(counted - filtered.victim.timeslices) <= 5 + filtered.missed(filtered.victim)
    sums = trace.sql(
        "SELECT sum(sum_ns)::BIGINT AS ns FROM histogram_sums WHERE kind LIKE 'runq%'"
    ).to_pylist()[0]["ns"]
    query = "SELECT count(*) AS n, sum(wait_ns)::BIGINT AS ns FROM waits WHERE kind LIKE 'runq%'"
    (waits,) = filtered.traces["cgroup"].sql(query).to_pylist()
    # Probes run one after another: at a switch-in the second recorder's clock stands by what the
    # first one's row took, 1 to 3 us measured, and a wait may be as short as 70 us.
    assert abs(sums - waits["ns"]) <= 0.05 * waits["ns"] + 2_000 * waits["n"]


def test_no_blocked(filtered: Filtered) -> None:
    rows = rows_of(filtered.traces["no_blocked"], filtered.victim)
    assert {r["kind"] for r in rows} == {"runq_wakeup", "runq_preempt"}
    counted = filtered.traces["no_blocked"].sql("SELECT DISTINCT kind FROM histogram_sums")
    assert set(counted["kind"].to_pylist()) == {"runq_wakeup", "runq_preempt"}


def _blamed(filtered: Filtered, name: str) -> Counter[int | None]:
    """Nanoseconds that the victim waited for each thread, as one recorder saw it."""
    blamed: Counter[int | None] = Counter()
    for row in filtered.rows(name, filtered.victim):
        blamed[row["culprit_tid"]] += row["wait_ns"]
    return blamed


def _in_histograms(trace: Trace, cgroup_id: int) -> int:
    """Switch-ins of a cgroup without a quota."""
    query = """SELECT sum(count)::BIGINT AS n FROM histogram_sums
        WHERE cgroup_id = ? AND kind LIKE 'runq%'"""
    return int(trace.sql(query, (cgroup_id,)).to_pylist()[0]["n"])


def test_cgroups_born_below_a_wanted_one(record: Record) -> None:
    """A list of cgroups made at the start would miss every container started later."""
    with (
        cgroup("parent") as parent,
        record("--cgroup", parent.name) as recording,
        load("victim", "--duration", 9) as outside,
    ):
        parent.weigh(100)
        found: list[tuple[str, Outcome]] = [
            (group.name, outcome) for group, outcome in nested_births(parent, depth=2)
        ]
        outside.stop()
        stranger = outside.outcome().one("victim")
    trace = recording.trace
    for name, outcome in found:
        victim = outcome.one("victim")
        (c,) = compare(trace, [victim])
        assert victim.timeslices > slices_at_least(trace, victim), str(c)
        assert c.switches_explained, str(c)
        assert {r["cgroup"] for r in rows_of(trace, victim)} == {name}
    assert rows_of(trace, stranger) == []
    named = {r["path"] for r in trace.table("cgroups", ["path"]).to_pylist()}
    assert {name for name, _ in found} <= named


def test_one_that_is_moved_in_while_it_waits_is_missed_since_it_had_the_cpu(
    record: Record,
) -> None:
    """Two hogs share a CPU, so each waits for milliseconds at a time and never for long."""
    cpu = max(allowed_cpus())
    hog = ("hog", "--duration", 9, "--cpu", cpu)
    with (
        cgroup("moved-in") as group,
        load(*hog),
        load(*hog) as moved,
        record("--cgroup", group.name) as recording,
    ):
        outside = group.hierarchy.mount / "cgroup.procs"
        for _ in range(12):
            time.sleep(0.15)
            group.procs.write_text(str(moved.pid), encoding="ascii")
            time.sleep(0.02)
            outside.write_text(str(moved.pid), encoding="ascii")
    missed = recording.trace.sql("SELECT tid, low_ns, high_ns FROM missed").to_pylist()
    assert {row["tid"] for row in missed} == {moved.pid}
    between = median(row["high_ns"] - row["low_ns"] for row in missed)
    assert between < 1_000_000, missed


def test_a_path_may_be_longer_than_an_event(record: Record) -> None:
    """Containers in containers have such."""
    with cgroup("deep") as outermost, record("--cgroup", outermost.name) as recording:
        inner = outermost
        for letter in "abc":
            inner = inner.child(letter * 200)
        name = inner.name
        run("victim", "--duration", 1, within=inner)
    assert len(name) > 600
    assert recording.trace.sql("SELECT DISTINCT cgroup FROM waits").to_pylist() == [
        {"cgroup": name}
    ]


def test_pid_follows_threads_and_children(record: Record) -> None:
    """The recording ends by itself when the last process asked for has exited."""
    with (
        load("exitstorm", "--duration", 4, "--at-once", 4, "--report") as storm,
        load("victim", "--duration", 9),
        record("--pid", storm.pid) as recording,
    ):
        outcome = storm.outcome()
        done = recording.wait()
    assert done.code == 0, done.err
    assert "exited" in done.out
    trace = recording.trace
    born = [t for t in outcome.threads if t.start_ns - t.run_delay_before_ns > recording.started_ns]
    assert len(born) > 200
    assert {t.role for t in born} == {"thread", "process"}
    seen = {r["tid"] for r in trace.sql("SELECT DISTINCT tid FROM waits").to_pylist()}
    # A life this short may have no wait but its first; that one may be among the missed.
    missed = {r["tid"] for r in trace.table("missed", ["tid"]).to_pylist()}
    absent = [t for t in born if t.tid not in seen | missed]
    assert absent == []
    family = {t.pid for t in outcome.threads} | {storm.pid}
    pids = trace.sql("SELECT DISTINCT pid FROM waits").to_pylist()
    assert {r["pid"] for r in pids} <= family
    # Also the threads that were there before the recorder, and never told it their name.
    names = trace.sql("SELECT DISTINCT comm FROM waits").to_pylist()
    assert names == [{"comm": "exitstorm"}]


def test_children_are_followed_however_many_came_before(tmp_path: Path) -> None:
    """More processes than the filter holds at once: those that ended make room."""
    path = tmp_path / "brood.slt"
    done = sltrace("record", "-q", "-o", path, "--", program("brood"), "--births", "17000")
    assert done.code == 0, done.err
    trace = Trace.open(path)
    assert counter(trace, "not_followed") == 0
    late = trace.sql("SELECT DISTINCT pid FROM waits WHERE comm = 'late' AND wait_ns > 15000000")
    assert late.num_rows == 3


def test_a_stranger_with_the_number_of_a_child_is_not_recorded(record: Record) -> None:
    """The child ended, and the kernel gave its number away."""
    script = "read begin; sleep 0.1 & echo $!; wait; sleep 5"
    with (
        subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as family,
        record("--pid", family.pid) as recording,
    ):
        assert family.stdin
        assert family.stdout
        family.stdin.write(b"begin\n")
        family.stdin.flush()
        child = int(family.stdout.readline())
        while Path(f"/proc/{child}").exists():
            time.sleep(0.01)
        for _ in range(50):
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(child - 1), encoding="ascii")
            with subprocess.Popen(["sleep", "0.05"]) as stranger:
                if stranger.pid == child:
                    break
        assert stranger.pid == child
        family.kill()
        recording.wait()
    rows = recording.trace.sql(
        f"SELECT count(*) AS n, max(end_ns) AS ns FROM waits WHERE pid = {child}"
    )
    (own,) = rows.to_pylist()
    assert own["n"] > 0
    tasks = recording.trace.sql(
        f"SELECT max(until_ns) AS ns FROM tasks WHERE pid = {child} AND ppid = {family.pid}"
    )
    assert own["ns"] <= tasks["ns"][0].as_py()
