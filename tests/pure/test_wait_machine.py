"""The probes' state machine against a plain model, on generated sequences of scheduler events."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sltrace.buckets import N_BUCKETS, bucket_of
from tests.support.machine import Kernel, Machine, Task, library

EXAMPLES = int(os.environ.get("SLTRACE_EXAMPLES", "150"))
CPUS, TASKS = 2, 5
HOLE, UNSTAMPED = 16, 17
CANDIDATES, WHOLE = 4, 512 - 64

steps = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 30), st.integers(1, 5000)), max_size=160
)
relaxed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def play(kernel: Kernel, script: list[tuple[int, int, int]], faults: bool = False) -> None:
    """Turns numbers into legal events; with faults, some of them are not told to the machine."""
    for tid in range(1, TASKS + 1):
        kernel.fork(tid % CPUS, tid)
        kernel.tick(7)
    births = TASKS
    for action, choice, dt in script:
        kernel.tick(dt)
        kernel.hidden = faults and (action * 31 + choice * 17 + dt) % 9 == 0
        cpu = choice % CPUS
        here = kernel.running[cpu]
        alive = [t for t in kernel.tasks.values() if t.state != "dead"]
        queued = [t for t in alive if t.state == "queued" and t.cpu == cpu]
        blocked = [t for t in alive if t.state == "blocked"]
        following = queued[choice // CPUS % len(queued)] if queued else None
        if action <= 5 and (here or following):
            how = ("preempt", "yield", "block", "block", "preempt", "block")[action]
            if here and not following and how != "block":
                continue
            kernel.switch(cpu, following, how)
        elif action in (6, 7) and blocked:
            sleeper = blocked[choice % len(blocked)]
            kernel.wake(sleeper, cpu, choice // 2 % CPUS, choice + 1)
        elif action == 8 and (moving := [t for t in alive if t.state == "queued"]):
            task = moving[choice % len(moving)]
            kernel.migrate(task, (task.cpu + 1) % CPUS)
        elif action == 9 and here:
            # A wake of a running task, or of one preempted on its way to sleep: no wait.
            target = following if following and following.why == "preempt" else here
            kernel.waking(target, cpu)
            kernel.tick(3)
            kernel.machine.call("host_wakeup", kernel.now, target.struct)
        elif action == 10 and here:
            # The wake lands before the switch-out that it answers.
            kernel.waking(here, (cpu + 1) % CPUS)
            kernel.tick(2)
            kernel.switch(cpu, following, "block")
            kernel.tick(choice + 1)
            kernel.enqueue(here, (cpu + choice) % CPUS)
        elif action == 11 and here and births < 40:
            births += 1
            if choice % 3 == 0 and len(alive) > 3:
                kernel.switch(cpu, following, "die")
            else:
                kernel.fork(cpu, births)
    kernel.hidden = False


@relaxed
@given(steps)
def test_records_are_the_waits_that_happened(script: list[tuple[int, int, int]]) -> None:
    machine = Machine()
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    records = machine.records()
    assert not np.isin(records["kind"], (HOLE, UNSTAMPED)).any()
    assert len(records) == len(kernel.waits) == machine.counter("records")
    for record, wait in zip(records, kernel.waits, strict=True):
        assert record["tid"] == wait.tid
        assert record["end_ns"] == wait.end
        assert record["runq_ns"] == wait.queued
        assert record["blocked_ns"] == wait.blocked
        assert record["kind"] == (1 if wait.kind == "preempt" else 0)
        if wait.kind == "wakeup":
            assert record["wake_ns"] == wait.wake
            assert record["waker_tid"] == wait.waker
        assert bool(record["flags"] & 2) == wait.first_run


@relaxed
@given(steps)
def test_the_culprit_is_who_ran_most(script: list[tuple[int, int, int]]) -> None:
    machine = Machine()
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    for record, wait in zip(machine.records(), kernel.waits, strict=True):
        queues = [kernel.ran_on(*queue) for queue in wait.queues]
        if record["culprit_known"]:
            ran = [q.get(record["culprit_tid"], 0) for q in queues]
            assert record["culprit_ns"] <= max(ran)
            assert record["culprit_others"] <= len({t for q in queues for t in q}) - 1
        if record["flags"] & 8 or any(len(q) > CANDIDATES for q in queues):
            continue
        if max(kernel.switched_on(*queue) for queue in wait.queues) > WHOLE:
            continue
        most = max((ns for q in queues for ns in q.values()), default=0)
        if not record["culprit_known"]:
            # Before the first switch on a CPU nobody is known to have run there.
            first = [kernel.runs[cpu][0][0] for cpu, _, _ in wait.queues if kernel.runs[cpu]]
            assert not most or min(first) >= wait.end - wait.queued
            continue
        assert record["culprit_ns"] == most
        assert record["culprit_tid"] in {t for q in queues for t, ns in q.items() if ns == most}


@relaxed
@given(st.integers(1, 3000), st.integers(0, 130), st.integers(2, 9))
def test_a_long_wait_is_still_the_hogs_fault(rounds: int, before: int, tasks: int) -> None:
    """A hog that runs 9 parts of 10 between short runs of many others, for longer than segments
    are remembered one by one."""
    machine = Machine()
    kernel = Kernel(machine, 1)
    victim, hog = kernel.fork(0, 1), kernel.fork(0, 2)
    others = [kernel.fork(0, 3 + i) for i in range(tasks)]
    for i in range(before):
        kernel.tick(10)
        kernel.switch(0, (hog, others[0])[i % 2], "preempt")
    kernel.tick(10)
    kernel.switch(0, victim, "preempt")
    kernel.tick(10)
    for i in range(rounds):
        kernel.switch(0, others[i % tasks], "preempt")
        kernel.tick(10)
        kernel.switch(0, hog, "preempt")
        kernel.tick(90)
    kernel.switch(0, victim, "preempt")
    record, wait = machine.records()[-1], kernel.waits[-1]
    assert (record["tid"], record["runq_ns"]) == (1, wait.queued) == (1, rounds * 100)
    assert record["culprit_tid"] == 2
    ran, partial = rounds * 90, bool(record["flags"] & 8)
    if 2 * rounds < WHOLE:
        assert (record["culprit_ns"], partial) == (ran, False)
    # 448 segments and 55 blocks of 64 reach back; one of them may be cut.
    remembered = (WHOLE + 54 * 64) * 50
    assert 0.85 * min(ran, 0.9 * remembered) <= record["culprit_ns"] <= ran
    if rounds * 100 <= remembered:
        assert not partial
    if rounds * 100 > 1.25 * (remembered + 64 * 50):
        assert partial


@relaxed
@given(steps)
def test_histograms_hold_every_wait(script: list[tuple[int, int, int]]) -> None:
    machine = Machine(histogram_only=1)
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    assert len(machine.records()) == 0
    for kind, name in ((0, "wakeup"), (1, "preempt")):
        waits = [w.queued for w in kernel.waits if w.kind == name]
        counts, total = machine.histogram(kind)
        assert total == sum(waits)
        assert (counts == np.bincount(bucket_of(waits), minlength=N_BUCKETS)).all()
    slept = [w.blocked for w in kernel.waits if w.blocked]
    counts, total = machine.histogram(3)
    assert (counts.sum(), total) == (len(slept), sum(slept))


@relaxed
@given(steps)
def test_what_is_missed_is_bounded(script: list[tuple[int, int, int]]) -> None:
    machine = Machine(start_ns=1000)
    kernel = Kernel(machine, CPUS)
    play(kernel, script, faults=True)
    records = machine.records()
    true: Counter[int] = Counter()
    known: Counter[int] = Counter()
    for wait in kernel.waits:
        if wait.end <= kernel.seen.get(wait.tid, 0):
            true[wait.tid] += wait.queued
            # Who runs when a CPU is first heard of may have run since before the recording.
            if wait.end >= kernel.heard.get(wait.queues[-1][0], wait.end + 1):
                known[wait.tid] += wait.queued
    whole = records[records["kind"] < HOLE]
    missed = records[records["kind"] >= HOLE]
    for tid in kernel.tasks:
        low = int(whole["runq_ns"][whole["tid"] == tid].sum())
        high = low + int(missed["wake_ns"][missed["tid"] == tid].sum())
        assert low <= true[tid], f"tid {tid}"
        assert known[tid] <= high, f"tid {tid}"


@relaxed
@given(steps)
def test_no_record_is_wrong_when_events_are_lost(script: list[tuple[int, int, int]]) -> None:
    machine = Machine(start_ns=1000)
    kernel = Kernel(machine, CPUS)
    play(kernel, script, faults=True)
    real = {(w.tid, w.end): w.queued for w in kernel.waits}
    records = machine.records()
    for record in records[records["kind"] < HOLE]:
        # A wait may have begun earlier than it was seen to, never later or elsewhere.
        assert record["runq_ns"] <= real[int(record["tid"]), int(record["end_ns"])]


@relaxed
@given(steps, st.integers(0, 20))
def test_every_switch_in_is_accounted_for(script: list[tuple[int, int, int]], room: int) -> None:
    machine = Machine(room=room, min_latency_ns=2000, blocked=0)
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    names = ("records", "below_min", "ring_full")
    assert sum(map(machine.counter, names)) == len(kernel.waits)
    assert machine.counter("records") == len(machine.records()) <= room
    assert machine.counter("below_min") == sum(w.queued < 2000 for w in kernel.waits)


def two_tasks(**config: int) -> tuple[Machine, Kernel, Task, Task]:
    """CPU 0 runs task 1, and task 2 is blocked after having run."""
    machine = Machine(**config)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    kernel.tick(10)
    kernel.switch(0, two, "block")
    kernel.tick(10)
    kernel.switch(0, one, "block")
    kernel.tick(10)
    return machine, kernel, one, two


def test_preemption_decides_over_the_state() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    # Preempted between setting its state and going to sleep: the kernel keeps it queued.
    kernel.machine.call("host_switch", kernel.now, 0, 1, one.struct, two.struct, 1)
    record = machine.records()[-1]
    assert record["tid"] == 2
    two.struct.switches = one.struct.switches = two.struct.switches + 1
    kernel.tick(50)
    kernel.machine.call("host_switch", kernel.now, 0, 1, two.struct, one.struct, 0)
    assert machine.records()[-1]["kind"] == 1
    assert machine.records()[-1]["runq_ns"] == 50


def test_throttled_time_is_told_from_the_queue() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    two.struct.throttle_clock[0] = 70
    kernel.switch(0, two, "block")
    record = machine.records()[-1]
    assert (record["runq_ns"], record["throttled_ns"]) == (100, 70)
    # Only who ran after the quota was there again is to blame.
    assert (record["culprit_tid"], record["culprit_ns"]) == (one.tid, 30)
    counts, total = machine.histogram(2)
    assert (counts.sum(), total) == (1, 70)


def test_throttled_time_is_added_up_over_queues() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    two.struct.throttle_clock[0] = 40
    two.struct.throttle_clock[1] = 5000
    kernel.migrate(two, 1)
    kernel.tick(100)
    two.struct.throttle_clock[1] = 5030
    kernel.switch(1, two, "block")
    assert machine.records()[-1]["throttled_ns"] == 70


def test_a_pid_used_again_starts_anew() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(10)
    kernel.switch(0, two, "block")
    kernel.tick(10)
    kernel.switch(0, None, "die")
    kernel.tick(1000)
    again = kernel.fork(0, 2)
    kernel.tick(30)
    kernel.switch(0, again, "block")
    record = machine.records()[-1]
    assert (record["runq_ns"], record["blocked_ns"], record["flags"] & 2) == (30, 0, 2)


def test_exits_leave_nothing_behind() -> None:
    machine = Machine()
    kernel = Kernel(machine, CPUS)
    for tid in range(1, 300):
        task = kernel.fork(0, tid)
        kernel.tick(5)
        kernel.switch(0, task, "block")
        kernel.tick(5)
        kernel.switch(0, None, "die")
    assert machine.states_used() == 0


def test_a_wait_under_way_at_the_start_is_censored() -> None:
    machine = Machine(start_ns=1000)
    kernel = Kernel(machine, CPUS)
    kernel.hidden = True
    task = kernel.fork(0, 1)
    kernel.hidden = False
    machine.call("host_queued_at_start", kernel.now, task.struct)
    kernel.tick(400)
    kernel.switch(0, task, "block")
    record = machine.records()[-1]
    assert (record["runq_ns"], record["flags"] & 1) == (400, 1)


def test_clocks_that_run_backwards_make_no_wait() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    before = len(machine.records())
    kernel.now -= 3
    kernel.switch(0, two, "block")
    assert len(machine.records()) == before
    assert machine.counter("clock_backwards") + machine.counter("unstamped") == 1


def test_filters_reject_by_task() -> None:
    machine = Machine(filter_pids=1)
    kernel = Kernel(machine, CPUS)
    wanted, other = kernel.fork(0, 1), kernel.fork(0, 2)
    other.struct.matches = 0
    library().host_reset  # noqa: B018
    kernel.tick(10)
    kernel.switch(0, wanted, "block")
    kernel.tick(10)
    kernel.switch(0, other, "preempt")
    kernel.tick(10)
    kernel.switch(0, wanted, "block")
    tids = machine.records()["tid"].tolist()
    assert set(tids) <= {1, 2}
    assert tids.count(1) == 2


@given(st.integers(0, 2**63))
def test_buckets_are_the_same_in_c(ns: int) -> None:
    lib = library()
    lib.host_bucket_of.argtypes = (__import__("ctypes").c_uint64,)
    assert lib.host_bucket_of(ns) == bucket_of([ns])[0]
