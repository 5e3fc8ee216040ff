"""Waits as they really were, to hold the records of the probes' state machine against."""

from __future__ import annotations

from dataclasses import dataclass

STACKS = ("stack_kernel", "stack_user", "waker_stack_kernel", "waker_stack_user")
"""Fields of a record, in the order of enum stack_kind of probes/wait_state.h."""


def stack(which: str, taken_ns: int) -> int:
    """The number of a stack that is taken at a time, as in probes/hosttest/machine.c."""
    return taken_ns * len(STACKS) + STACKS.index(which)


@dataclass
class Wait:
    """A wait as it really was."""

    tid: int
    kind: str
    end: int
    queued: int
    throttled: int
    blocked: int
    wake: int
    waking: int
    """When it was woken last, the call."""
    waker: int
    left: int | None
    """When it left a CPU before; None: it never had one."""
    queues: list[tuple[int, int, int]]
    """(CPU, from, to) of each queue it waited on."""
    first_run: bool
    yielded: bool
    moved_asleep: bool
    prev_cpu: int
    state: int
    cgroup: int
    policy: int

    @property
    def cpu(self) -> int:
        """Where it got the CPU."""
        return self.queues[-1][0]

    @property
    def stacks(self) -> dict[str, int]:
        """Those at its end, at its begin, and of who ended its sleep: of interrupts the kernel's.

        Without what is not there: the parent of a new task does not wake it.
        """
        woken = self.kind == "wakeup" and not self.first_run
        taken = {
            "stack_kernel": self.end,
            "stack_user": self.left,
            "waker_stack_kernel": self.waking if woken else None,
            "waker_stack_user": self.waking if woken and self.waker else None,
        }
        return {which: stack(which, ns) for which, ns in taken.items() if ns is not None}
