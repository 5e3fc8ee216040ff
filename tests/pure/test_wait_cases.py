"""The probes' state machine on one sequence of events each: where wrong numbers would come from."""

from __future__ import annotations

import pytest

from sltrace.model import Flag
from tests.support.machine import Kernel, Machine, Task
from tests.support.truewaits import stack
from tests.support.waits import (
    CPUS,
    UNSTAMPED,
    last,
    missed,
    preempted_by,
    two_tasks,
    unseen,
)

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
    assert last(machine, "tid", "kind", "runq_ns", "blocked_ns", "state") == (1, 1, 50, 0, 0)


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
    preempted_by(kernel, one, two, one)
    assert set(machine.records()["tid"].tolist()) == {1}
    assert machine.counter("state_lost") == 2


def test_no_room_for_a_task_that_may_be_asked_for_is_counted_beside_one_that_is_not() -> None:
    machine = Machine(filter_pids=1)
    machine.call("host_tids_end", 2)
    kernel = Kernel(machine, CPUS)
    other, wanted = kernel.fork(0, 1, matches=0), kernel.fork(0, 2)
    preempted_by(kernel, other, wanted, other)
    assert len(machine.records()) == 0
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


def test_a_quota_clock_that_stood_still_says_nothing_of_the_time_before_a_move() -> None:
    """That of an idle CPU is read as of its last tick, and jumps once the quota is there again."""
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(60)
    kernel.migrate(two, 1)
    kernel.throttle(1, 40)
    two.struct.throttle_clock[1] += 70
    kernel.switch(1, two, "block")
    assert last(machine, "runq_ns", "throttled_ns") == (100, 40)


@pytest.mark.parametrize("migrates", [False, True])
def test_another_quotas_clock_says_nothing_of_a_wait(migrates: bool) -> None:
    """A task that waits is moved to a cgroup whose quota was used up in former days."""
    machine, kernel, _, two = two_tasks()
    kernel.wake(two, 0, 0, 5)
    kernel.tick(60)
    two.struct.quota_group = 2
    for cpu in range(CPUS):
        two.struct.throttle_clock[cpu] = 1_000_000
    if migrates:
        kernel.migrate(two, 1)
        kernel.throttle(1, 10)
    kernel.tick(40)
    kernel.switch(int(migrates), two, "block")
    expected = (110, 10) if migrates else (100, 0)
    assert last(machine, "runq_ns", "throttled_ns") == expected


def test_who_was_real_time_was_held_back_by_no_quota() -> None:
    machine, kernel, _, two = two_tasks()
    kernel.throttle(0, 5000)
    two.struct.prio, normal = 50, two.struct.prio
    kernel.wake(two, 0, 0, 5)
    kernel.tick(60)
    two.struct.prio = normal
    kernel.tick(40)
    kernel.switch(0, two, "block")
    assert last(machine, "runq_ns", "throttled_ns") == (100, 0)


def test_a_task_of_sched_ext_is_held_back_by_no_quota_when_it_is_moved() -> None:
    """While it is moved it looks like one of the fair class, which its group's quota holds."""
    machine, kernel, _, two = two_tasks()
    group, two.struct.quota_group = two.struct.quota_group, 0
    kernel.wake(two, 0, 0, 5)
    for cpu in (1, 0):
        two.struct.quota_group = group
        kernel.migrate(two, cpu)
        two.struct.quota_group = 0
        kernel.throttle(cpu, 50)
    kernel.switch(0, two, "block")
    assert last(machine, "runq_ns", "throttled_ns") == (100, 0)


# ---- the start of a recording --------------------------------------------------------------


def test_a_wait_under_way_at_the_start_is_censored() -> None:
    machine = Machine(start_ns=1000)
    kernel = Kernel(machine, CPUS)
    kernel.hidden = True
    task = kernel.fork(1, 1)
    kernel.hidden = False
    # It has run before.
    task.struct.exec_ns = 12_345
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
    preempted_by(kernel, other, wanted)
    assert machine.records()["tid"].tolist() == [1, 1]
    # Who is not asked for is to blame all the same.
    assert last(machine, "culprit_tid", "culprit_ns") == (2, 10)


def test_a_task_that_moves_out_of_a_wanted_cgroup_is_not_asked_for() -> None:
    machine = Machine(filter_cgroups=1)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    preempted_by(kernel, one, two, one, two)
    assert machine.records()["tid"].tolist() == [1, 2, 1, 2]
    one.struct.cgroup, one.struct.matches = 8, 0
    preempted_by(kernel, one, two, one, two)
    assert machine.records()["tid"].tolist()[4:] == [2, 2]


def test_a_task_that_is_moved_while_it_is_looked_at_is_looked_at_again() -> None:
    machine = Machine(filter_cgroups=1)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    one.struct.cgroup, one.struct.moves_while_matched = 8, 1
    preempted_by(kernel, one, two, one, two)
    assert machine.records()["tid"].tolist() == [2, 2]


@pytest.mark.parametrize("half", [0, 1])
def test_a_task_that_was_looked_at_under_its_old_name_is_looked_at_again(half: int) -> None:
    """The event of a rename comes before the name changes, and others look at it in between."""
    machine = Machine(filter_comms=1)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    preempted_by(kernel, one, two, one, two)
    one.struct.comm[half], one.struct.matches = 7, 0
    preempted_by(kernel, one, two, one, two)
    assert machine.records()["tid"].tolist() == [1, 2, 1, 2, 2, 2]


def _moved_in_while(how: str, beside: int = 1) -> tuple[Machine, Kernel, Task, Task, int]:
    """A task that nobody asked for leaves the CPU, and is moved in 30 ns later; since when.

    To one that was asked for, unless `beside` is 0.
    """
    machine = Machine(filter_cgroups=1)
    kernel = Kernel(machine, CPUS)
    two, one = kernel.fork(0, 2, matches=beside), kernel.fork(0, 1, matches=0)
    kernel.switch(0, two, "block")
    kernel.tick(100_000)
    kernel.switch(0, one, "preempt")
    kernel.tick(100_000)
    kernel.switch(0, two, how)
    left = kernel.now
    kernel.tick(30)
    return machine, kernel, one, two, left


def _move_in(task: Task) -> None:
    task.struct.cgroup, task.struct.matches = 8, 1


@pytest.mark.parametrize("beside", [0, 1])
@pytest.mark.parametrize("how", ["preempt", "yield"])
def test_a_task_that_is_moved_in_while_it_waits_is_missed_for_as_long(
    how: str, beside: int
) -> None:
    machine, kernel, one, _, left = _moved_in_while(how, beside)
    _move_in(one)
    kernel.tick(20)
    kernel.switch(0, one, "block")
    waited = kernel.now - left
    assert missed(machine) == [(UNSTAMPED, 1, waited, waited)]
    assert machine.counter("holes") == 0


def test_one_that_was_woken_before_it_was_moved_in() -> None:
    machine, kernel, one, _, left = _moved_in_while("block")
    kernel.tick(1000)
    kernel.wake(one, 0, 0, 5)
    woken = kernel.now
    kernel.tick(30)
    _move_in(one)
    kernel.tick(20)
    kernel.switch(0, one, "block")
    ((cause, tid, low, high),) = missed(machine)
    assert (cause, tid, low) == (UNSTAMPED, 1, kernel.now - woken)
    assert kernel.now - woken <= high <= kernel.now - left


def test_one_that_sleeps_when_it_is_moved_in_misses_nothing() -> None:
    machine, kernel, one, _, left = _moved_in_while("block")
    _move_in(one)
    kernel.wake(one, 0, 0, 5)
    woken = kernel.now
    kernel.tick(20)
    kernel.switch(0, one, "block")
    assert missed(machine) == []
    assert last(machine, "tid", "runq_ns", "blocked_ns", "state") == (1, 20, woken - left, 1)


def test_one_that_is_moved_in_while_it_is_on_its_way_to_sleep() -> None:
    """It never left the queue: its wake begins no wait."""
    machine, kernel, one, _, left = _moved_in_while("interrupt")
    _move_in(one)
    kernel.wakeup(one)
    kernel.tick(20)
    kernel.switch(0, one, "block")
    waited = kernel.now - left
    assert missed(machine) == [(UNSTAMPED, 1, waited, waited)]


def test_one_that_is_moved_out_and_back_is_missed_since_it_left_last() -> None:
    machine, kernel, one, two, _ = _moved_in_while("preempt")
    _move_in(one)
    kernel.switch(0, one, "preempt")
    kernel.tick(50)
    one.struct.cgroup, one.struct.matches = 9, 0
    for following in (two, one, two):
        kernel.tick(100_000)
        kernel.switch(0, following, "preempt")
    left = kernel.now
    before = len(missed(machine))
    kernel.tick(30)
    _move_in(one)
    kernel.switch(0, one, "block")
    assert missed(machine)[before:] == [(UNSTAMPED, 1, kernel.now - left, kernel.now - left)]


def test_a_switch_ends_what_its_cpu_was_interrupted_by() -> None:
    machine, kernel, one, two = two_tasks()
    machine.interrupts(0).value = 1
    machine.interrupts(1).value = 1
    kernel.switch(0, None, "block")
    assert (machine.interrupts(0).value, machine.interrupts(1).value) == (0, 1)
    assert one.tid != two.tid


def test_where_it_left_a_cpu_unasked_no_earlier_stack_is_the_one_of_its_sleep() -> None:
    machine = Machine(filter_cgroups=1, stack_user=1)
    kernel = Kernel(machine, CPUS)
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    kernel.switch(0, one, "block")
    for cgroup, asked in ((8, 1), (10, 0)):
        one.struct.cgroup, one.struct.matches = cgroup, asked
        kernel.tick(10)
        kernel.switch(0, two, "block")
        left = kernel.now
        _move_in(one)
        kernel.tick(10)
        kernel.wake(one, 0, 0, 5)
        kernel.tick(10)
        kernel.switch(0, one, "preempt")
        known = asked * stack("stack_user", left)
        assert last(machine, "tid", "blocked_ns", "stack_user") == (1, 15, known)
