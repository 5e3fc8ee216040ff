"""Whom the probes' state machine names as the culprit of a wait, on one sequence of events each."""

from __future__ import annotations

import pytest

from sltrace.model import Flag
from tests.support.machine import Kernel, Machine, Task
from tests.support.waits import CPUS, last, two_tasks


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


def one_asked_for() -> tuple[Machine, Kernel, Task, Task, Task]:
    """A filter keeps the first of three; it has slept for 10 ns when the second gets the CPU."""
    machine = Machine(filter_pids=1)
    kernel = Kernel(machine, CPUS)
    victim, two, three = (kernel.fork(0, tid, matches=int(tid == 1)) for tid in (1, 2, 3))
    kernel.switch(0, victim, "block")
    kernel.tick(10)
    kernel.switch(0, two, "preempt")
    return machine, kernel, victim, two, three


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


def test_one_that_ran_long_before_many_others_is_not_forgotten() -> None:
    machine, kernel, victim, hog, others = many()
    turns(kernel, (hog, 400), *((t, 30) for t in others))
    kernel.switch(0, victim, "preempt")
    names = ("tid", "culprit_tid", "culprit_ns", "culprit_others")
    assert last(machine, *names) == (1, 2, 400, 4)


@pytest.mark.parametrize("rounds", [2, 200])
def test_one_that_runs_in_short_slices_is_named_among_more_than_are_told_apart(rounds: int) -> None:
    """Each slice is shorter than any of the others' runs; with 200 rounds most is in blocks."""
    machine = Machine()
    kernel = Kernel(machine, 1)
    victim, hog, *others = (kernel.fork(0, 1 + i) for i in range(250))
    kernel.switch(0, victim, "block")
    kernel.tick(10)
    kernel.switch(0, hog, "preempt")
    for i in range(20 * rounds):
        turns(kernel, (hog, 25), (others[i % len(others)], 26))
    kernel.switch(0, victim, "preempt")
    assert last(machine, "tid", "culprit_tid", "culprit_others") == (1, 2, 4)
    assert last(machine, "culprit_ns")[0] <= 20 * rounds * 25 + 10


@pytest.mark.parametrize("loader", ["libbpf", "bcc"])
def test_two_whose_numbers_share_a_place_are_told_apart(loader: str) -> None:
    machine = Machine(loader=loader)
    kernel = Kernel(machine, 1)
    victim, hog, rival = (kernel.fork(0, tid) for tid in (1, 2, 91))
    kernel.switch(0, victim, "block")
    kernel.tick(10)
    turns(kernel, (hog, 40), (rival, 41), (hog, 28))
    kernel.switch(0, victim, "preempt")
    assert last(machine, "tid", "culprit_tid", "culprit_ns") == (1, 2, 68)


def test_that_more_ran_than_a_block_names_is_known() -> None:
    machine, kernel, victim, hog, others = many()
    large, small = [(t, 30) for t in others[:3]], [(t, 1) for t in others[3:7]]
    turns(kernel, (hog, 40), *large, *small, times=150)
    turns(kernel, (hog, 40), large[0], times=300)
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


@pytest.mark.parametrize("lag", [0, 9])
def test_blame_between_tasks_nobody_asked_for_is_as_near_as_the_queues_clock(lag: int) -> None:
    machine, kernel, victim, two, three = one_asked_for()
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


def test_no_culprit_ran_for_longer_than_the_wait() -> None:
    """A switch seems to be yet to come where the queue's clock lags less than at the comparison."""
    machine, kernel, victim, two, three = one_asked_for()
    kernel.tick(50_000)
    machine.queue_lag(16_000)
    kernel.switch(0, three, "preempt")
    machine.queue_lag(400)
    kernel.tick(50_000)
    kernel.switch(0, two, "preempt")
    kernel.tick(5000)
    kernel.switch(0, victim, "preempt")
    tid, runq, culprit, ns = last(machine, "tid", "runq_ns", "culprit_tid", "culprit_ns")
    assert (tid, runq, culprit) == (1, 105_000, 3)
    assert ns <= runq
    assert not last(machine, "flags")[0] & Flag.CULPRIT_PARTIAL


@pytest.mark.parametrize("loader", ["libbpf", "bcc"])
@pytest.mark.parametrize("moved", [False, True])
def test_who_ran_while_a_quota_held_the_wait_back_is_no_culprit(loader: str, moved: bool) -> None:
    """Also where that was on a queue that it has left since."""
    machine, kernel, one, two = two_tasks(loader=loader)
    three, four = kernel.fork(0, 3), kernel.fork(1, 4)
    kernel.switch(1, four, "block")
    kernel.tick(10)
    kernel.wake(two, 0, 0, 5)
    kernel.throttle(0, 60)
    kernel.switch(0, three, "preempt")
    kernel.tick(5)
    if moved:
        kernel.migrate(two, 1)
        kernel.tick(4)
    kernel.switch(int(moved), two, "preempt")
    names = ("tid", "throttled_ns", "culprit_tid", "culprit_ns", "culprit_others")
    assert last(machine, *names) == (2, 60, three.tid, 5, int(moved))
    assert one.tid != three.tid


def test_a_quota_that_held_a_wait_back_later_takes_nothing_from_its_begin() -> None:
    machine, kernel, one, two = two_tasks()
    three = kernel.fork(1, 3)
    kernel.switch(1, three, "block")
    kernel.tick(10)
    kernel.wake(two, 0, 0, 5)
    kernel.tick(45)
    kernel.migrate(two, 1)
    kernel.throttle(1, 40)
    kernel.tick(10)
    kernel.switch(1, two, "preempt")
    names = ("runq_ns", "throttled_ns", "culprit_tid", "culprit_ns", "culprit_others")
    assert last(machine, *names) == (95, 40, one.tid, 45, 1)


def test_a_wait_that_a_quota_held_back_to_its_end_has_no_culprit() -> None:
    machine, kernel, _, two = two_tasks()
    three = kernel.fork(1, 3)
    kernel.switch(1, three, "block")
    kernel.wake(two, 0, 0, 5)
    kernel.throttle(0, 60)
    kernel.migrate(two, 1)
    kernel.throttle(1, 30)
    kernel.switch(1, two, "preempt")
    assert last(machine, "runq_ns", "throttled_ns", "culprit_known") == (90, 90, 0)
