"""The probes' state machine against a plain model, on generated sequences of scheduler events."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sltrace.buckets import N_BUCKETS, bucket_of
from sltrace.model import Flag
from tests.support.machine import Kernel, Machine, library
from tests.support.truewaits import STACKS, Wait
from tests.support.waits import CPUS, HOLE, UNSTAMPED

EXAMPLES = int(os.environ.get("SLTRACE_EXAMPLES", "150"))
TASKS = 5
MAX_OTHERS, WHOLE = 4, 512 - 64
THROTTLE = 12
STACK_MIN_NS = 2000


def _decoded(raw: bytes) -> list[tuple[int, int, int]]:
    """Action, choice and time of each step."""
    words = np.frombuffer(raw[: len(raw) // 4 * 4], "<u4").tolist()
    return [(w % 16, (w >> 4) % 31, 1 + (w >> 9) % 5000) for w in words]


# Bytes and no list of numbers: drawn at once.
steps = st.binary(min_size=80, max_size=640).map(_decoded)
relaxed = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


def play(
    kernel: Kernel, script: list[tuple[int, int, int]], faults: bool = False, wanted: int = 40
) -> None:
    """Turns numbers into legal events; with faults, some of them are not told to the machine.

    Tasks with numbers above `wanted` pass no filter.
    """
    for tid in range(1, TASKS + 1):
        kernel.fork(tid % CPUS, tid, matches=int(tid <= wanted))
        kernel.tick(7)
    births = TASKS
    for action, choice, dt in script:
        # A quota may be used up as soon as a wait begins.
        if action != THROTTLE or choice % 3:
            kernel.tick(dt)
        kernel.hidden = faults and (action * 31 + choice * 17 + dt) % 9 == 0
        cpu = choice % CPUS
        here = kernel.running[cpu]
        alive = [t for t in kernel.tasks.values() if t.state != "dead"]
        queued = [t for t in alive if t.state == "queued" and t.cpu == cpu]
        blocked = [t for t in alive if t.state == "blocked"]
        following = queued[choice // CPUS % len(queued)] if queued else None
        if action <= 5 and (here or following):
            how = ("preempt", "yield", "block", "block", "interrupt", "block")[action]
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
            kernel.wakeup(target)
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
                # Of one that was born unseen, what it did before it is first seen is not known.
                kernel.hidden = False
                kernel.fork(cpu, births, matches=int(births <= wanted))
        elif action == THROTTLE:
            kernel.throttle(cpu, dt)
        elif action == 13 and blocked:
            # If nobody sees it, its sleep is taken for the wait that the kernel's account says.
            kernel.hidden = False
            kernel.move_asleep(blocked[choice % len(blocked)], cpu)
        elif action == 14 and following:
            following.struct.policy ^= 1
        elif action == 15 and following:
            following.struct.cgroup ^= 1
    kernel.hidden = False


@relaxed
@given(steps)
def test_records_are_the_waits_that_happened(script: list[tuple[int, int, int]]) -> None:
    machine = Machine(stack_kernel=1, stack_user=1, stack_waker=1, stack_min_ns=STACK_MIN_NS)
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    records = machine.records()
    assert not np.isin(records["kind"], (HOLE, UNSTAMPED)).any()
    assert len(records) == len(kernel.waits) == machine.counter("records")
    for record, wait in zip(records, kernel.waits, strict=True):
        woken = wait.kind == "wakeup"
        told = {
            "tid": wait.tid,
            "pid": wait.tid,
            "end_ns": wait.end,
            "runq_ns": wait.queued,
            "throttled_ns": wait.throttled,
            "blocked_ns": wait.blocked,
            "kind": 0 if woken else 1,
            "wake_ns": wait.wake if woken else 0,
            "waker_tid": wait.waker if woken else 0,
            "waker_pid": wait.waker if woken else 0,
            "cpu": wait.cpu,
            "prev_cpu": wait.prev_cpu,
            "state": wait.state,
            "cgroup": wait.cgroup,
            "policy": wait.policy,
            "prio": 125,
            "nice": 3,
        }
        assert {name: int(record[name]) for name in told} == told
        stacks = wait.stacks if max(wait.queued, wait.blocked) >= STACK_MIN_NS else {}
        assert {name: int(record[name]) for name in STACKS if record[name]} == stacks
        by_task = wait.waker or wait.first_run
        assert record["waker_context"] == ((1 if by_task else 3) if woken else 0)
        flags = Flag(int(record["flags"])) & ~Flag.CULPRIT_PARTIAL
        assert flags == _flags(wait), str(wait)


def _flags(wait: Wait) -> Flag:
    known = {
        Flag.FIRST_RUN: wait.first_run,
        Flag.MIGRATED_QUEUED: len(wait.queues) > 1,
        Flag.YIELDED: wait.yielded,
        Flag.MOVED_ASLEEP: wait.moved_asleep,
    }
    return Flag(sum(flag for flag, is_so in known.items() if is_so))


@relaxed
@given(steps, st.sampled_from((2, 40)))
def test_the_culprit_is_who_ran_most(script: list[tuple[int, int, int]], wanted: int) -> None:
    machine = Machine(filter_pids=int(wanted < 40))
    kernel = Kernel(machine, CPUS)
    play(kernel, script, wanted=wanted)
    waits = [wait for wait in kernel.waits if wait.tid <= wanted]
    for record, wait in zip(machine.records(), waits, strict=True):
        held = [kernel.throttled(*queue) for queue in wait.queues]
        windows = [
            (cpu, start + ns, end) for (cpu, start, end), ns in zip(wait.queues, held, strict=True)
        ]
        if any(kernel.throttled(*window) for window in windows):
            # When within a wait the quota was used up is not known, only for how long.
            assert record["culprit_ns"] <= max(end - from_ns for _, from_ns, end in windows)
            continue
        queues = [kernel.ran_on(*window) for window in windows]
        if record["culprit_known"]:
            who = kernel.tasks[record["culprit_tid"]].struct if record["culprit_tid"] else None
            # A step changes the lowest bit of a task's cgroup.
            named = int(record["culprit_pid"]), int(record["culprit_cgroup"]) >> 1
            assert named == ((who.pid, who.cgroup >> 1) if who else (0, 0))
            ran = [q.get(record["culprit_tid"], 0) for q in queues]
            assert record["culprit_ns"] <= max(ran)
            assert record["culprit_others"] <= len({t for q in queues for t in q}) - 1
        if record["flags"] & 8:
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
        assert record["culprit_others"] >= min(max(len(q) for q in queues) - 1, MAX_OTHERS)
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
    # 448 segments and 56 blocks of 64 reach back; one of them may be cut.
    remembered = (WHOLE + 55 * 64) * 50
    assert 0.85 * min(ran, 0.9 * remembered) <= record["culprit_ns"] <= ran
    assert record["culprit_ns"] <= 90 * (WHOLE + 57 * 64) // 2
    if rounds * 100 <= remembered:
        assert not partial
    if rounds * 100 > 1.25 * (remembered + 64 * 50):
        assert partial


@relaxed
@given(steps, st.integers(0, 60_000))
def test_histograms_hold_every_wait_from_then_on(
    script: list[tuple[int, int, int]], since: int
) -> None:
    """Of one wait in three kinds, each that ended then or later."""
    machine = Machine(histogram_only=1)
    machine.count_since(since)
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    assert len(machine.records()) == 0
    slots = machine.slots
    used = np.flatnonzero(slots.owners["use"]).tolist()
    keys = [
        (index // slots.per_cpu, *slots.owners[["cgroup", "policy"]][index].tolist())
        for index in used
    ]
    all_of_them = [w for w in kernel.waits if w.end >= since]
    assert sorted(keys) == sorted({(w.cpu, w.cgroup, w.policy) for w in all_of_them})
    for index, key in zip(used, keys, strict=True):
        waits = [w for w in all_of_them if (w.cpu, w.cgroup, w.policy) == key]
        queued = [(w.kind, w.queued - w.throttled) for w in waits if w.queued > w.throttled]
        expected = {
            0: [ns for kind, ns in queued if kind == "wakeup"],
            1: [ns for kind, ns in queued if kind == "preempt"],
            2: [
                w.throttled
                for w in waits
                if w.throttled and w.end - w.queued + w.throttled >= since
            ],
            3: [w.blocked for w in waits if w.blocked and w.end - w.queued >= since],
        }
        for kind, times in expected.items():
            counted = slots.counts["kinds"][index, kind]
            assert counted["sum_ns"] == sum(times)
            assert (counted["count"] == np.bincount(bucket_of(times), minlength=N_BUCKETS)).all()


@relaxed
@given(steps)
def test_policy_and_cpu_filters_are_of_who_waited(script: list[tuple[int, int, int]]) -> None:
    machine = Machine(policies=1 << 1, filter_cpus=1)
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    # The host test wants CPU 0.
    wanted = [(w.tid, w.end) for w in kernel.waits if w.policy == 1 and w.cpu == 0]
    records = machine.records()
    assert list(zip(records["tid"].tolist(), records["end_ns"].tolist(), strict=True)) == wanted
    assert sum(machine.histogram(kind)[0].sum() for kind in (0, 1)) <= len(wanted)


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
        seen, unseen = whole[whole["tid"] == tid], missed[missed["tid"] == tid]
        low, high = (int(seen["runq_ns"].sum() + unseen[at].sum()) for at in ("runq_ns", "wake_ns"))
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
@given(steps, st.integers(0, 20), st.booleans())
def test_every_switch_in_is_accounted_for(
    script: list[tuple[int, int, int]], room: int, blocked: bool
) -> None:
    machine = Machine(room=room, min_latency_ns=2000, blocked=int(blocked))
    kernel = Kernel(machine, CPUS)
    play(kernel, script)
    assert machine.counter("switches") == sum(kernel.switches)
    names = ("records", "below_min", "ring_full")
    assert sum(map(machine.counter, names)) == len(kernel.waits)
    records = machine.records()
    assert machine.counter("records") == len(records) <= room
    longest = [max(w.queued, w.blocked if blocked else 0) for w in kernel.waits]
    assert machine.counter("below_min") == sum(ns < 2000 for ns in longest)
    assert blocked or not records["blocked_ns"].any()
    assert machine.histogram(3)[1] == (sum(w.blocked for w in kernel.waits) if blocked else 0)


@given(st.integers(0, 2**63))
def test_buckets_are_the_same_in_c(ns: int) -> None:
    lib = library()
    lib.host_bucket_of.argtypes = (__import__("ctypes").c_uint64,)
    assert lib.host_bucket_of(ns) == bucket_of([ns])[0]


@relaxed
@given(st.data(), st.integers(5, 100))
def test_of_many_tasks_the_one_that_ran_most_is_named(data: st.DataObject, tasks: int) -> None:
    machine = Machine()
    kernel = Kernel(machine, 1)
    victim, *others = (kernel.fork(0, 1 + i) for i in range(tasks + 1))
    kernel.switch(0, victim, "block")
    kernel.tick(10)
    kernel.switch(0, others[0], "preempt")
    runs = st.tuples(st.integers(0, tasks - 1), st.integers(1, 50))
    for who, ns in data.draw(st.lists(runs, min_size=tasks, max_size=WHOLE)):
        kernel.tick(ns)
        kernel.switch(0, others[who], "preempt")
    kernel.tick(1)
    kernel.switch(0, victim, "preempt")
    (queue,) = kernel.waits[-1].queues
    ran = kernel.ran_on(*queue)
    record, most = machine.records()[-1], max(ran.values())
    assert (record["tid"], record["culprit_ns"], ran[record["culprit_tid"]]) == (1, most, most)
    assert record["culprit_others"] == min(len(ran) - 1, MAX_OTHERS)
