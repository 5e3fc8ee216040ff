"""The probes' state machine on one sequence of events each: where wrong numbers would come from."""

from __future__ import annotations

from typing import Any

import pytest

from sltrace.model import Flag
from tests.support.machine import UNKNOWN_WAIT, Kernel, Machine, Task

CPUS = 2
HOLE, UNSTAMPED = 16, 17


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


def unseen(kernel: Kernel, *turns: tuple[Task | None, str], cpu: int = 0, each: int = 50) -> None:
    """Switches of a CPU that are not delivered, one every so many nanoseconds."""
    kernel.hidden = True
    for following, how in turns:
        kernel.tick(each)
        kernel.switch(cpu, following, how)
    kernel.hidden = False


def lost_wake(kernel: Kernel, task: Task) -> None:
    kernel.hidden = True
    kernel.wake(task, 0, 0, 5)
    kernel.hidden = False


def hole_after_a_wakeup(kernel: Kernel, task: Task, cpu: int) -> int:
    """It is woken on CPU 0 and gets a CPU unseen, which is noticed later; how long it waited."""
    kernel.wake(task, 0, 0, 5)
    woken = kernel.now
    if cpu:
        kernel.migrate(task, cpu)
    unseen(kernel, (task, "block"), cpu=cpu)
    begun = kernel.now
    kernel.tick(300)
    kernel.switch(cpu, None, "block")
    return begun - woken


def last(machine: Machine, *names: str) -> tuple[int, ...]:
    record = machine.records()[-1]
    return tuple(int(record[name]) for name in names)


def missed(machine: Machine) -> list[tuple[int, int, int, int]]:
    """(cause, thread, least, most) of each wait that was not seen whole."""
    records = machine.records()
    rows: list[Any] = records[records["kind"] >= HOLE].tolist()
    names = [records.dtype.names.index(n) for n in ("kind", "tid", "runq_ns", "wake_ns")]
    return [tuple(int(row[i]) for i in names) for row in rows]  # type: ignore[misc]


# ---- what a switch-out means ---------------------------------------------------------------


def test_preemption_decides_over_the_state() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    # Between setting its state and going to sleep: the kernel keeps it queued, and so a wakeup
    # that comes meanwhile is none.
    kernel.switch(0, two, "interrupt")
    kernel.tick(20)
    kernel.waking(one, 1)
    kernel.enqueue(one, 0)
    kernel.tick(30)
    kernel.switch(0, one, "preempt")
    assert last(machine, "tid", "kind", "runq_ns", "blocked_ns", "state") == (1, 1, 50, 0, 1)


def test_exits_leave_nothing_behind() -> None:
    """Neither of tasks that are asked for, nor of others."""
    machine = Machine(filter_pids=1)
    kernel = Kernel(machine, CPUS)
    for tid in range(1, 300):
        task = kernel.fork(0, tid, matches=tid % 2)
        kernel.tick(5)
        kernel.switch(0, task, "block")
        kernel.tick(5)
        kernel.switch(0, None, "die")
    assert machine.states_used() == 0


def test_a_pid_used_again_starts_anew() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(10)
    kernel.switch(0, two, "block")
    # Whether or not its end was seen.
    unseen(kernel, (None, "die"))
    kernel.tick(1000)
    again = kernel.fork(0, 2)
    kernel.tick(30)
    kernel.switch(0, again, "block")
    names = ("runq_ns", "blocked_ns", "flags", "prev_cpu", "state")
    assert last(machine, *names) == (30, 0, Flag.FIRST_RUN, 0, 0)
    assert [m for m in missed(machine) if m[0] == UNSTAMPED] == []


def test_no_room_for_a_task_is_counted() -> None:
    machine = Machine()
    machine.call("host_tids_end", 2)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    for following in (one, two, one):
        kernel.tick(10)
        kernel.switch(0, following, "preempt")
    assert set(machine.records()["tid"].tolist()) == {1}
    assert machine.counter("state_lost") == 2


def test_clocks_that_run_backwards_make_no_wait() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    before = len(machine.records())
    kernel.now -= 3
    kernel.switch(0, two, "block")
    assert len(machine.records()) == before
    assert machine.counter("clock_backwards") == 1


# ---- quota ---------------------------------------------------------------------------------


def test_throttled_time_is_told_from_the_queue() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.throttle(0, 70)
    kernel.tick(30)
    kernel.switch(0, two, "block")
    # Only who ran after the quota was there again is to blame.
    names = ("runq_ns", "throttled_ns", "culprit_tid", "culprit_ns")
    assert last(machine, *names) == (100, 70, one.tid, 30)


def test_throttled_time_is_added_up_over_queues() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.throttle(1, 5000)
    kernel.wake(two, 0, 0, 5)
    kernel.throttle(0, 40)
    kernel.migrate(two, 1)
    kernel.throttle(1, 30)
    kernel.tick(30)
    kernel.switch(1, two, "block")
    assert last(machine, "runq_ns", "throttled_ns") == (100, 70)


def test_a_quota_clock_that_is_ahead_is_cut_to_the_wait() -> None:
    """The kernel reads it at the queue's clock, which is not the moment of the switch."""
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    two.struct.throttle_clock[0] += 103
    kernel.switch(0, two, "block")
    assert last(machine, "runq_ns", "throttled_ns", "culprit_known") == (100, 100, 0)
    assert machine.histogram(2)[1] == 100
    # The first runs of both, and no run-queue wait of this one.
    assert machine.histogram(0)[0].sum() == 2


# ---- switches and wakeups that were not delivered ------------------------------------------


def test_a_hole_is_as_long_as_the_task_was_not_seen() -> None:
    machine, kernel, one, two = two_tasks()
    since = kernel.now - 10  # when it was seen to block
    lost_wake(kernel, two)
    unseen(kernel, (two, "block"))
    begun = kernel.now
    kernel.tick(300)
    kernel.switch(0, None, "block")
    # The scheduler's own account has the wait itself, and not the sleep before it.
    assert missed(machine) == [(HOLE, 2, 50, begun - since)]
    assert (machine.counter("holes"), machine.counter("switches_lost")) == (1, 1)
    # It is known to have run, and for how long.
    kernel.wake(one, 1, 0, 5)
    kernel.tick(10)
    kernel.switch(0, one, "block")
    kernel.wake(two, 0, 0, 5)
    kernel.tick(7)
    kernel.switch(0, two, "block")
    assert last(machine, "tid", "culprit_tid", "culprit_ns") == (2, 1, 7)


def test_a_hole_that_finds_no_room_is_counted() -> None:
    machine = Machine(room=0)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    kernel.switch(0, one, "block")
    unseen(kernel, (two, "block"))
    kernel.tick(300)
    kernel.switch(0, None, "block")
    # The first run of the one, and what is not known of the other.
    assert [machine.counter(n) for n in ("holes", "ring_full", "records")] == [1, 2, 0]


def test_a_hole_after_a_wakeup_begins_with_it() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.tick(1000)
    waited = hole_after_a_wakeup(kernel, two, cpu=0)
    assert missed(machine) == [(HOLE, 2, waited, waited)]


def test_a_wake_from_before_a_hole_is_not_that_of_the_next_wait() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    unseen(kernel, (two, "block"))
    kernel.tick(10)
    kernel.switch(0, None, "block")
    kernel.tick(10)
    kernel.machine.call("host_wakeup", kernel.now, two.struct)
    two.state, two.why = "queued", "wakeup"
    kernel.tick(40)
    kernel.switch(0, two, "block")
    names = ("tid", "runq_ns", "wake_ns", "waker_context", "flags")
    assert last(machine, *names) == (2, 40, 0, 0, Flag.FOREIGN_WAKE)
    assert one.tid == 1


@pytest.mark.parametrize("idle", [False, True])
def test_who_ran_unseen_is_a_culprit_still(idle: bool) -> None:
    """The victim waits while another is switched in unseen, which is noticed when it leaves."""
    machine, kernel, one, two = two_tasks()
    three = kernel.fork(0, 3)
    kernel.tick(10)
    kernel.switch(0, three, "preempt")
    kernel.tick(10)
    kernel.switch(0, one, "block")
    kernel.tick(10)
    kernel.wake(two, 0, 0, 5)
    if idle:
        unseen(kernel, (None, "block"))
        kernel.tick(900)
        kernel.switch(0, two, "block")
        # All that is known is that nobody was there when the hole ended.
        assert last(machine, "tid", "culprit_tid", "culprit_known") == (2, 0, 1)
    else:
        lost_wake(kernel, three)
        unseen(kernel, (three, "preempt"))
        kernel.tick(900)
        kernel.switch(0, two, "block")
        assert last(machine, "tid", "culprit_tid", "culprit_ns") == (2, 3, 900)


@pytest.mark.parametrize("lag", [0, 9])
def test_blame_between_tasks_nobody_asked_for_is_as_near_as_the_queues_clock(lag: int) -> None:
    machine = Machine(filter_pids=1)
    kernel = Kernel(machine, CPUS)
    victim, two, three = (kernel.fork(0, tid, matches=int(tid == 1)) for tid in (1, 2, 3))
    kernel.switch(0, victim, "block")
    kernel.tick(10)
    kernel.switch(0, two, "preempt")
    kernel.tick(100)
    kernel.switch(0, three, "preempt")
    kernel.tick(300)
    machine.queue_lag(lag)
    kernel.switch(0, two, "preempt")
    kernel.tick(1000)
    kernel.switch(0, victim, "preempt")
    names = ("tid", "runq_ns", "culprit_tid", "culprit_ns", "culprit_others")
    assert last(machine, *names) == (1, 1400, 2, 1100 + lag, 1)
    # A comparison of the two clocks holds for 4 ms: after that the lag is in both.
    kernel.tick(10)
    kernel.switch(0, two, "preempt")
    kernel.tick(5_000_000)
    kernel.switch(0, three, "preempt")
    kernel.tick(1000)
    kernel.switch(0, victim, "preempt")
    assert last(machine, *names) == (1, 5_001_000, 2, 5_000_000, 1)


def test_a_cpu_not_heard_of_before_may_hide_the_end_of_a_wait() -> None:
    machine, kernel, _, two = two_tasks()
    waited = hole_after_a_wakeup(kernel, two, cpu=1)
    assert missed(machine) == [(HOLE, 2, waited, waited)]
    assert last(machine, "pid", "cpu") == (2, 1)


def test_a_lost_wakeup_is_bounded_by_the_schedulers_own_stamp() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.tick(5000)
    kernel.switch(0, None, "block")
    kernel.tick(25)
    lost_wake(kernel, two)
    kernel.tick(40)
    kernel.switch(0, two, "preempt")
    # The queue's clock may be as old as the last switch here.
    assert missed(machine) == [(UNSTAMPED, 2, 40, 40 + 25 + 5 + 40)]
    assert one.tid == 1


def test_the_schedulers_account_has_earlier_queues_too() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.tick(5000)
    kernel.switch(0, None, "block")
    kernel.hidden = True
    kernel.wake(two, 0, 0, 5)
    kernel.tick(300)
    kernel.migrate(two, 1)
    kernel.tick(20)
    kernel.migrate(two, 0)
    kernel.hidden = False
    kernel.tick(40)
    kernel.switch(0, two, "preempt")
    assert missed(machine) == [(UNSTAMPED, 2, 360, 360 + 365)]


def test_without_the_schedulers_account_nothing_is_said_to_be_the_least() -> None:
    machine, kernel, _, two = two_tasks()
    since = kernel.now - 10
    lost_wake(kernel, two)
    two.queue_from = kernel.now - UNKNOWN_WAIT
    kernel.tick(40)
    two.queue_from += 40
    kernel.switch(0, two, "preempt")
    assert missed(machine) == [(UNSTAMPED, 2, 0, kernel.now - since)]


def test_a_lost_wakeup_after_a_move_is_bounded_by_what_was_seen() -> None:
    """On another queue the scheduler's stamp began anew."""
    machine, kernel, _, two = two_tasks()
    since = kernel.now - 10
    kernel.tick(500)
    kernel.switch(0, None, "block")
    kernel.move_asleep(two, 1)
    kernel.move_asleep(two, 0)
    lost_wake(kernel, two)
    kernel.tick(40)
    kernel.switch(0, two, "preempt")
    assert missed(machine) == [(UNSTAMPED, 2, 0, kernel.now - since)]


def test_nothing_is_missed_from_before_the_recording() -> None:
    machine = Machine(start_ns=5000)
    kernel = Kernel(machine, CPUS)
    kernel.hidden = True
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    kernel.hidden = False
    kernel.now = 6000
    kernel.switch(0, one, "block")
    kernel.tick(100)
    kernel.switch(0, two, "block")
    assert missed(machine) == [(UNSTAMPED, 1, 0, 1000), (UNSTAMPED, 2, 0, 1100)]


def test_what_was_unstamped_is_seen_from_then_on() -> None:
    machine, kernel, _, two = two_tasks()
    lost_wake(kernel, two)
    kernel.tick(40)
    kernel.switch(0, two, "preempt")
    begun = kernel.now
    two.struct.kernel_wait_ns = 1 << 62
    unseen(kernel, (None, "block"))
    lost_wake(kernel, two)
    two.queue_from = 0
    kernel.tick(60)
    kernel.switch(0, two, "preempt")
    _, tid, _, most = missed(machine)[-1]
    assert (tid, most) == (2, kernel.now - begun - 50)


def test_a_second_wake_shows_that_it_ran_in_between() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    woken = kernel.now
    unseen(kernel, (two, "block"), (None, "block"))
    kernel.tick(70)
    kernel.wake(two, 0, 0, 5)
    again = kernel.now
    kernel.tick(30)
    kernel.switch(0, two, "block")
    assert last(machine, "tid", "kind", "runq_ns", "blocked_ns") == (2, 0, 30, 0)
    # It ran for 50 ns of that.
    assert missed(machine)[-1] == (UNSTAMPED, 2, 0, again - woken - 50)


def test_what_it_ran_before_the_first_of_two_wakes_is_no_part_of_the_gap() -> None:
    machine, kernel, _, two = two_tasks()
    lost_wake(kernel, two)
    unseen(kernel, (two, "block"), (None, "block"), each=400)
    kernel.wake(two, 0, 0, 5)
    woken = kernel.now
    unseen(kernel, (two, "block"), (None, "block"))
    kernel.tick(70)
    kernel.wake(two, 0, 0, 5)
    again = kernel.now
    kernel.tick(30)
    kernel.switch(0, two, "block")
    assert missed(machine)[-1] == (UNSTAMPED, 2, 0, again - woken - 50)


def test_a_move_of_who_is_being_woken_is_no_move_asleep() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.waking(two, 0)
    kernel.tick(5)
    kernel.move_asleep(two, 1)
    kernel.tick(5)
    kernel.enqueue(two, 1)
    kernel.tick(30)
    kernel.switch(1, two, "block")
    assert last(machine, "tid", "runq_ns") == (2, 30)
    assert not last(machine, "flags")[0] & Flag.MOVED_ASLEEP


def test_a_wake_of_who_was_preempted_shows_that_it_ran() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    kernel.switch(0, two, "interrupt")
    left = kernel.now
    unseen(kernel, (one, "block"), (None, "block"))
    kernel.tick(70)
    kernel.wake(one, 0, 1, 5)
    again = kernel.now
    kernel.tick(30)
    kernel.switch(1, one, "block")
    names = ("tid", "kind", "runq_ns", "blocked_ns", "prev_cpu", "state")
    assert last(machine, *names) == (1, 0, 30, 0, 1, 0)
    assert missed(machine)[-1] == (UNSTAMPED, 1, 0, again - left - 50)


def test_cpu_time_used_unseen_ends_a_preemption() -> None:
    machine, kernel, one, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    kernel.switch(0, two, "preempt")
    left = kernel.now
    unseen(kernel, (one, "preempt"), (two, "preempt"))
    kernel.tick(30)
    kernel.hidden = True
    kernel.switch(0, None, "block")
    kernel.hidden = False
    kernel.tick(30)
    one.struct.kernel_wait_ns = 1 << 62
    kernel.switch(0, one, "preempt")
    records = machine.records()
    assert records[records["kind"] < HOLE][-1]["tid"] == 2
    assert missed(machine)[-1] == (UNSTAMPED, 1, 0, kernel.now - left - 50)


def test_cpu_time_used_unseen_ends_a_wait_after_a_wake() -> None:
    machine, kernel, _, two = two_tasks()
    left = kernel.now - 10
    kernel.wake(two, 0, 0, 5)
    unseen(kernel, (two, "block"), (None, "preempt"))
    kernel.tick(30)
    kernel.switch(0, two, "preempt")
    assert missed(machine)[-1] == (UNSTAMPED, 2, 0, kernel.now - left - 50)


# ---- the start of a recording --------------------------------------------------------------


def test_a_wait_under_way_at_the_start_is_censored() -> None:
    machine = Machine(start_ns=1000)
    kernel = Kernel(machine, CPUS)
    kernel.hidden = True
    task = kernel.fork(1, 1)
    kernel.hidden = False
    # Of what a quota held it back, too, only what was since then counts.
    kernel.throttle(1, 5000)
    machine.call("host_queued_at_start", kernel.now, task.struct)
    kernel.throttle(1, 150)
    kernel.tick(100)
    kernel.migrate(task, 0)
    kernel.tick(150)
    kernel.switch(0, task, "block")
    names = ("kind", "runq_ns", "throttled_ns", "prev_cpu", "cpu")
    assert last(machine, *names) == (1, 400, 150, 1, 0)
    # Nor is known who ran: nothing was heard of that CPU before.
    flags = Flag.CENSORED | Flag.CULPRIT_PARTIAL | Flag.MIGRATED_QUEUED
    assert last(machine, "flags")[0] == flags


def test_a_wait_that_was_seen_to_begin_is_not() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(10)
    machine.call("host_queued_at_start", kernel.now, two.struct)
    kernel.tick(20)
    kernel.switch(0, two, "block")
    assert last(machine, "kind", "runq_ns", "blocked_ns", "flags") == (0, 30, 15, 0)


# ---- filters -------------------------------------------------------------------------------


def test_filters_are_of_who_waits() -> None:
    machine = Machine(filter_pids=1)
    kernel = Kernel(machine, CPUS)
    wanted, other = kernel.fork(0, 1), kernel.fork(0, 2, matches=0)
    kernel.tick(10)
    kernel.switch(0, wanted, "block")
    for following in (other, wanted):
        kernel.tick(10)
        kernel.switch(0, following, "preempt")
    assert machine.records()["tid"].tolist() == [1, 1]
    # Who is not asked for is to blame all the same.
    assert last(machine, "culprit_tid", "culprit_ns") == (2, 10)


def test_a_task_that_moves_out_of_a_wanted_cgroup_is_not_asked_for() -> None:
    machine = Machine(filter_cgroups=1)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    for following in (one, two, one, two):
        kernel.tick(10)
        kernel.switch(0, following, "preempt")
    assert machine.records()["tid"].tolist() == [1, 2, 1, 2]
    one.struct.cgroup, one.struct.matches = 8, 0
    for following in (one, two, one, two):
        kernel.tick(10)
        kernel.switch(0, following, "preempt")
    assert machine.records()["tid"].tolist()[4:] == [2, 2]


# ---- the culprit ---------------------------------------------------------------------------


def many(rounds: int = 1) -> tuple[Machine, Kernel, Task, Task, list[Task]]:
    """A victim, a hog and many others on one CPU; the victim waits from now on."""
    machine = Machine()
    kernel = Kernel(machine, 1)
    victim, hog = kernel.fork(0, 1), kernel.fork(0, 2)
    others = [kernel.fork(0, 3 + i) for i in range(9)]
    for i in range(rounds):
        kernel.tick(1000)
        kernel.switch(0, others[i % 8], "preempt")
    kernel.tick(10)
    kernel.switch(0, victim, "preempt")
    kernel.tick(10)
    return machine, kernel, victim, hog, others


def turns(kernel: Kernel, *runs: tuple[Task, int], times: int = 1) -> None:
    """These run one after the other, each for so many nanoseconds."""
    for _ in range(times):
        for task, ns in runs:
            kernel.switch(0, task, "preempt")
            kernel.tick(ns)


@pytest.mark.parametrize("before", [7, 4200])
def test_one_long_run_in_every_block_is_not_forgotten(before: int) -> None:
    """Four others have run when it comes; blocks are used again after 4096 switches."""
    machine, kernel, victim, hog, others = many(before)
    rival, small = others.pop(), [(task, 10 + i) for i, task in enumerate(others)]
    for _ in range(30):
        turns(kernel, *small, (hog, 40), times=13)
        turns(kernel, (rival, 300))
    kernel.switch(0, victim, "preempt")
    assert last(machine, "tid", "culprit_tid") == (1, 2)
    ran, known = 30 * 13 * 40, last(machine, "culprit_ns")[0]
    assert 0.7 * ran <= known <= ran
    assert last(machine, "culprit_others")[0] >= 4
    assert not last(machine, "flags")[0] & Flag.CULPRIT_PARTIAL


def test_that_more_ran_than_a_block_names_is_known() -> None:
    machine, kernel, victim, hog, others = many()
    large, small = [(t, 30) for t in others[:3]], [(t, 1) for t in others[3:7]]
    turns(kernel, (hog, 40), *large, *small, times=150)
    turns(kernel, (hog, 40), large[0], times=300)
    kernel.switch(0, victim, "preempt")
    assert last(machine, "culprit_tid", "culprit_others") == (2, 3 + 1)


def test_that_more_ran_than_a_search_names_is_known() -> None:
    machine, kernel, victim, hog, others = many()
    turns(kernel, (hog, 40), *((t, 30) for t in others[:3]), times=200)
    turns(kernel, (hog, 40), *((t, 30) for t in others[4:7]), times=150)
    kernel.switch(0, victim, "preempt")
    assert last(machine, "culprit_tid", "culprit_others") == (2, 3 + 1)


def test_who_ran_before_the_wait_is_none_of_the_others() -> None:
    """Neither in the block that the wait begins in, nor in those that are used again."""
    machine, kernel, victim, hog, others = many(4200)
    turns(kernel, (hog, 40), (others[0], 30), times=1500)
    kernel.switch(0, victim, "preempt")
    assert last(machine, "culprit_tid", "culprit_others") == (2, 1)


def test_a_long_run_in_the_block_that_a_wait_begins_in_is_known() -> None:
    machine, kernel, victim, hog, others = many(7)
    turns(kernel, (others[0], 5), (hog, 100_000))
    turns(kernel, (others[0], 5), (others[1], 5), times=300)
    kernel.switch(0, victim, "preempt")
    assert last(machine, "culprit_tid") == (2,)
    # What ran before the wait in that block is taken off, as it may have been this task's.
    assert 90_000 <= last(machine, "culprit_ns")[0] <= 100_000
    assert not last(machine, "flags")[0] & Flag.CULPRIT_PARTIAL


def test_others_are_the_most_on_any_queue() -> None:
    machine, kernel, one, two = two_tasks()
    three, four = kernel.fork(0, 3), kernel.fork(0, 4)
    five = kernel.fork(1, 5)
    kernel.switch(1, five, "block")
    kernel.tick(10)
    kernel.wake(two, 0, 0, 5)
    for following in (three, four):
        kernel.tick(100)
        kernel.switch(0, following, "preempt")
    kernel.tick(150)
    kernel.migrate(two, 1)
    kernel.tick(20)
    kernel.switch(1, two, "preempt")
    names = ("culprit_tid", "culprit_ns", "culprit_others")
    assert last(machine, *names) == (four.tid, 150, 2)
    assert one.tid != four.tid


def test_one_task_on_the_second_queue_is_not_the_culprit_of_the_first() -> None:
    machine, kernel, one, two = two_tasks()
    three = kernel.fork(1, 3)
    kernel.switch(1, three, "block")
    kernel.tick(10)
    kernel.wake(two, 0, 0, 5)
    kernel.tick(100)
    kernel.migrate(two, 1)
    kernel.tick(20)
    kernel.switch(1, two, "preempt")
    names = ("culprit_tid", "culprit_ns", "culprit_others")
    assert last(machine, *names) == (one.tid, 100, 1)
