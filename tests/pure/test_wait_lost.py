"""What the probes' state machine makes of switches and wakeups that were not delivered."""

from __future__ import annotations

import pytest

from sltrace.model import Flag
from tests.support.machine import UNKNOWN_WAIT, Kernel, Machine, Task
from tests.support.waits import (
    CPUS,
    HOLE,
    UNSTAMPED,
    hole_after_a_wakeup,
    last,
    lost_wake,
    missed,
    two_tasks,
    unseen,
)


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


def test_histograms_alone_say_what_is_missing_from_them() -> None:
    machine, kernel, _, two = two_tasks(histogram_only=1)
    waited = hole_after_a_wakeup(kernel, two, cpu=0)
    assert missed(machine) == [(HOLE, 2, waited, waited)]
    assert len(machine.records()) == 1


@pytest.mark.parametrize("wanted", [False, True])
def test_what_is_missed_passes_the_filters_too(wanted: bool) -> None:
    """Whom nobody asked for is no loss."""
    policy = 1 if wanted else 2
    machine, kernel, _, two = two_tasks(policies=1 << policy)
    two.struct.policy = 1
    waited = hole_after_a_wakeup(kernel, two, cpu=0)
    assert missed(machine) == ([(HOLE, 2, waited, waited)] if wanted else [])
    # Somebody else may have got the CPU within it.
    assert machine.counter("holes") == 1
    lost_wake(kernel, two)
    kernel.switch(0, two, "block")
    assert machine.counter("unstamped") == len(missed(machine)) - wanted == wanted


@pytest.mark.parametrize("cpu", [0, 1])
def test_what_is_missed_on_other_cpus_was_not_asked_for(cpu: int) -> None:
    """The host test wants CPU 0."""
    machine, kernel, _, two = two_tasks(filter_cpus=1)
    kernel.switch(1, None, "block")
    hole_after_a_wakeup(kernel, two, cpu)
    lost_wake(kernel, two)
    if cpu:
        kernel.migrate(two, cpu)
    kernel.tick(5)
    kernel.switch(cpu, two, "block")
    assert [cause for cause, *_ in missed(machine)] == ([HOLE, UNSTAMPED] if cpu == 0 else [])
    assert machine.counter("unstamped") == (cpu == 0)


def test_who_ran_unseen_may_have_waited_on_any_cpu() -> None:
    machine, kernel, _, two = two_tasks(filter_cpus=1)
    kernel.hidden = True
    kernel.wake(two, 0, 0, 5)
    kernel.switch(0, two, "block")
    kernel.tick(50)
    kernel.switch(0, None, "block")
    kernel.wake(two, 1, 1, 5)
    kernel.hidden = False
    kernel.tick(5)
    kernel.switch(1, two, "block")
    assert [cause for cause, *_ in missed(machine)] == [UNSTAMPED]


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


def test_who_ran_unseen_is_a_culprit_also_where_nobody_asked_for_it() -> None:
    machine = Machine(filter_pids=1)
    kernel = Kernel(machine, CPUS)
    victim = kernel.fork(0, 1)
    one, two = (kernel.fork(0, tid, matches=0) for tid in (2, 3))
    kernel.switch(0, victim, "block")
    kernel.tick(10)
    kernel.switch(0, one, "block")
    kernel.tick(10)
    kernel.wake(victim, 0, 0, 5)
    unseen(kernel, (two, "preempt"))
    kernel.tick(900)
    kernel.switch(0, victim, "preempt")
    assert last(machine, "tid", "culprit_tid", "culprit_others") == (1, two.tid, 0)
    assert machine.counter("holes") == 1


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


def test_where_the_scheduler_says_nothing_the_first_wakeup_of_a_task_is_one() -> None:
    """It ran before anything was seen."""
    machine = Machine()
    kernel = Kernel(machine, CPUS)
    kernel.hidden = True
    one, two = kernel.fork(0, 1), kernel.fork(0, 2)
    kernel.switch(0, two, "block")
    kernel.tick(10)
    kernel.switch(0, one, "block")
    kernel.hidden = False
    kernel.tick(10)
    two.struct.kernel_wait_ns = UNKNOWN_WAIT
    two.state, two.why, two.woken_at, two.queue_from = "queued", "wakeup", kernel.now, kernel.now
    machine.call("host_wakeup", kernel.now, two.struct)
    kernel.tick(40)
    kernel.switch(0, two, "block")
    assert last(machine, "tid", "kind", "runq_ns") == (2, 0, 40)
    assert machine.counter("unstamped") == 0


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


def woken_twice(kernel: Kernel, task: Task) -> int:
    """It runs 50 ns unseen between two wakeups, and gets a CPU after 30; how far they are apart."""
    kernel.wake(task, 0, 0, 5)
    woken = kernel.now
    unseen(kernel, (task, "block"), (None, "block"))
    kernel.tick(70)
    kernel.wake(task, 0, 0, 5)
    again = kernel.now
    kernel.tick(30)
    kernel.switch(0, task, "block")
    return again - woken


def test_a_second_wake_shows_that_it_ran_in_between() -> None:
    machine, kernel, _, two = two_tasks(stack_user=1)
    apart = woken_twice(kernel, two)
    assert last(machine, "tid", "kind", "runq_ns", "blocked_ns") == (2, 0, 30, 0)
    # How it left the CPU then is not known.
    assert last(machine, "state", "stack_user") == (0, 0)
    # It ran for 50 ns of that.
    assert missed(machine)[-1] == (UNSTAMPED, 2, 0, apart - 50)


def test_what_it_ran_before_the_first_of_two_wakes_is_no_part_of_the_gap() -> None:
    machine, kernel, _, two = two_tasks()
    lost_wake(kernel, two)
    unseen(kernel, (two, "block"), (None, "block"), each=400)
    apart = woken_twice(kernel, two)
    assert missed(machine)[-1] == (UNSTAMPED, 2, 0, apart - 50)


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


def test_where_the_scheduler_says_nothing_a_wake_of_who_ran_unseen_is_none() -> None:
    """It may have been preempted on its way to sleep, and waits for longer."""
    machine, kernel, _, two = two_tasks()
    left = kernel.now - 10
    lost_wake(kernel, two)
    unseen(kernel, (two, "block"), (None, "interrupt"))
    kernel.tick(30)
    two.struct.kernel_wait_ns = UNKNOWN_WAIT
    machine.call("host_wakeup", kernel.now, two.struct)
    kernel.tick(40)
    two.queue_from = kernel.now - UNKNOWN_WAIT
    kernel.switch(0, two, "block")
    # It ran for 50 ns.
    assert missed(machine)[-1] == (UNSTAMPED, 2, 0, kernel.now - left - 50)
    records = machine.records()
    assert records[records["tid"] == 2]["kind"].tolist()[1:] == [UNSTAMPED]
