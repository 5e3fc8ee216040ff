"""Short sequences of scheduler events for the probes' state machine, and what it says of them."""

from __future__ import annotations

from typing import Any

from tests.support.machine import Kernel, Machine, Task

CPUS = 2
HOLE, UNSTAMPED = 16, 17


def two_tasks(**config: Any) -> tuple[Machine, Kernel, Task, Task]:
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


def preempted_by(kernel: Kernel, *following: Task) -> None:
    """CPU 0 runs one after the other, each from 10 ns after the one before."""
    for task in following:
        kernel.tick(10)
        kernel.switch(0, task, "preempt")


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
    rows = records[records["kind"] >= HOLE]
    kinds, tids, low, high = (rows[n].tolist() for n in ("kind", "tid", "runq_ns", "wake_ns"))
    return list(zip(kinds, tids, low, high, strict=True))
