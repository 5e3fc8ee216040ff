"""Who was to blame, where the answer is known: a neighbour, a real-time thread, no quota."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cgroups import cgroup
from tests.support.cli import told
from tests.support.loads import LoadError, allowed_cpus, load, run
from tests.support.recorder import Record

pytestmark = [pytest.mark.bpf, pytest.mark.alone]


def _blame(path: Path, by: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = told("blame", path, "--by", by)["cells"]
    return cells


def _share(cells: list[dict[str, Any]], victim: str, what: str, culprit: str | None) -> float:
    """Part of a victim's time that went to one culprit."""
    mine = [c for c in cells if c["victim"] == victim]
    total = sum(c["wait_ns"] for c in mine)
    assert total > 50_000_000, mine
    hit = [c for c in mine if c["what"] == what and c["culprit_name"] == culprit]
    return float(sum(c["wait_ns"] for c in hit) / total)


@pytest.mark.parametrize("policy", ["other", "fifo"])
def test_a_hog_on_the_same_cpu_is_named(record: Record, policy: str) -> None:
    cpu = allowed_cpus()[-1]
    hog = ["--duration", 9, "--cpu", cpu, "--policy", policy, "--comm", "thehog"]
    # SCHED_BATCH does not preempt when it wakes: it waits for the hog's slice to end.
    patient = "batch"
    if policy == "fifo":
        # Of lower priority, so that it waits for the hog and for nothing else on this machine.
        patient = "rr"
        hog += ["--busy-us", 6000, "--period-us", 10_000, "--priority", 2]
    victim = ["--duration", 3, "--cpu", cpu, "--comm", "thevictim", "--period-us", 3000]
    victim += ["--burst-us", 1500]
    with ExitStack() as stack:
        together = None
        if policy == "other":
            # Where sessions have groups of their own (autogroup) nice is worth nothing between two.
            together = stack.enter_context(cgroup("together"))
            together.weigh(100)
        recording = stack.enter_context(record())
        running = stack.enter_context(load("hog", *hog, within=together))
        try:
            waited = run("victim", *victim, "--policy", patient, within=together).one("victim")
        finally:
            running.stop()
        try:
            running.outcome()
        except LoadError as err:
            if err.exit_code == 3:
                pytest.skip(str(err))
            raise
    cells = _blame(recording.path, "comm")
    assert _share(cells, "thevictim", "task", "thehog") >= 0.95, cells
    pids = [c for c in _blame(recording.path, "pid") if c["victim"] == waited.pid]
    assert max(pids, key=lambda c: c["wait_ns"])["culprit"] == running.pid, pids


def test_the_neighbours_cgroup_is_named(record: Record) -> None:
    """Two threads of it: each of the victim's waits sees both, and has one of them as culprit."""
    cpu = allowed_cpus()[-1]
    with cgroup("loud") as loud, cgroup("meek") as meek, record() as recording:
        # What runs outside of it must not be what the victim waits for.
        loud.weigh(100)
        with load("quota", "--duration", 9, "--threads", 2, prefix=_on(cpu), within=loud) as noise:
            options = ("--duration", 3, "--period-us", 3000, "--burst-us", 500)
            # With SCHED_IDLE it waited for all of the 9 s now and then: the weight of its cgroup's
            # queue is then 3 of 1,024 while the kernel still counts load of it on another CPU.
            alone = run("victim", *options, "--policy", "batch", prefix=_on(cpu), within=meek)
            noise.stop()
            ran = noise.outcome().by_role("quota")
        cells = _blame(recording.path, "cgroup")
        # Of the time that the victim left, by the clocks of the threads themselves.
        left_ns = max(t.end_ns - t.start_ns for t in ran) - alone.one("victim").cpu_ns
        had = sum(t.cpu_ns for t in ran) / left_ns
        named = _share(cells, meek.name, "task", loud.name)
        unnamed = _share(cells, meek.name, "others", None)
        print(f"\n{had:.3f} of the time, {named:.3f} of the blame, {unnamed:.3f} unnamed")
        # All of this machine shares the CPU.
        assert had > 0.7
        assert named + unnamed >= min(0.95, had - 0.02), cells
        # One culprit a wait would make it half. Waits near a hole have one.
        assert unnamed < 0.15, cells


def _on(cpu: int) -> list[str]:
    return ["taskset", "-c", str(cpu)]


def test_nobody_is_blamed_for_a_quota_that_was_not_used_up(record: Record) -> None:
    cpu = allowed_cpus()[-1]
    with cgroup("ample", cpus=0.9) as ample, record() as recording:
        ample.weigh(100)
        run("victim", "--duration", 1, prefix=_on(cpu), within=ample)
        assert ample.cpu_stat().throttled == 0
        name = ample.name
    rows = recording.trace.sql("SELECT kind FROM waits WHERE cgroup = ?", (name,)).to_pylist()
    assert len(rows) > 300
    assert {r["kind"] for r in rows} <= {"runq_wakeup", "runq_preempt", "blocked"}


@pytest.mark.parametrize("own", [None, 0.2], ids=["no quota of its own", "one as large"])
def test_the_quota_of_the_cgroup_above_is_named(record: Record, own: float | None) -> None:
    """The kernel's clock of a queue runs for both alike; cpu.stat tells whose was used up."""
    with cgroup("above", cpus=0.2) as above, record() as recording:
        above.weigh(100)
        below, beside = above.child("below"), above.child("beside")
        if own:
            below.limit(own)
        # Its neighbour uses the quota up; it needs half as much at most.
        with load("quota", "--duration", 3, "--threads", 2, within=beside):
            run("victim", "--duration", 2, "--period-us", 3000, "--burst-us", 300, within=below)
        used_up, not_used_up = above.cpu_stat(), below.cpu_stat()
        names = above.name, below.name
    cells = _blame(recording.path, "cgroup")
    assert used_up.throttled > 5
    assert not not_used_up.throttled
    by_quota = [c for c in cells if c["victim"] == names[1] and c["what"] == "quota"]
    assert {c["culprit_name"] for c in by_quota} == {names[0]}, cells
    assert sum(c["wait_ns"] for c in by_quota) > 100_000_000, cells
