"""For which part of the time the probes of a process are on, so that they cost no more than asked.

A breakpoint costs what it costs, and the runtime decides how many there are: less is only to be
had by looking part of the time. A process earns a share of the CPU time that it uses by itself,
and its probes spend it. They are on from the start of each period until all is spent, and off for
its rest; how long a period is varies, lest it goes in step with something the process does.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sltrace.capture import priority

DEFAULT_SHARE = {0: math.inf, 1: 0.02, 2: 0.07, 3: math.inf}
"""By level, beside the 1 to 4 % that level 0 costs (measured). Level 3 is everything, and asked for
as such."""
_BESIDE = 1.5
"""What hits cost in all, in hits and programs as measured alone: 1.2 to 1.5 here, with what they
displace in the caches."""
_PERIOD_S = (0.5, 1.5)
_CHANGE_NS = 2_000_000
"""CPU time to take probes out and put them in again: 1.5 to 2.3 ms here. What it was is charged,
too; this is for what is to come."""
_WORTH = 4
"""Changes for which must have been earned before the probes are on again: so most of it is spent
on looking."""
_LENT_NS = 10_000_000
"""What the first look may cost before anything is earned, beside putting the probes in."""
_CHECK_S = (0.002, 0.05)


class Account:
    """What the probes of one process may cost, and have.

    Args:
        share: Of the CPU time that the process uses by itself.
        now: Seconds (monotonic); likewise elsewhere.
        chance: Of the length of periods.
        on: Whether the probes are on.
        put_in_ns: CPU time it took to put them in, which is not to keep them from a first look.

    Attributes:
        on: Whether they are to be on.
        next_s: When it is to be asked again.
    """

    def __init__(
        self, share: float, now: float, chance: random.Random, *, on: bool, put_in_ns: int = 0
    ) -> None:
        self.on = on
        self.next_s = now
        self.cpu_ns = self.spent_ns = 0
        self._share = share
        self._chance = chance
        self._lent: float = _LENT_NS + put_in_ns
        self._balance = self._earned = 0.0
        self._asked_s = self._period_ends = now
        self._loss_a_second = math.inf

    def ask(self, now: float, cpu_ns: int, spent_ns: int) -> bool:
        """Whether the probes are to be on from now on.

        Args:
            now: When.
            cpu_ns: CPU time of the process, since its probes were put in.
            spent_ns: CPU time that the probes took since then.
        """
        spent = spent_ns - self.spent_ns
        earned = self._share * max(cpu_ns - self.cpu_ns - spent, 0)
        seconds = max(now - self._asked_s, 1e-6)
        self.cpu_ns, self.spent_ns, self._asked_s = cpu_ns, spent_ns, now
        self._balance += earned - spent
        self._earned += earned
        if self.on:
            self._loss_a_second = (spent - earned) / seconds
        if now >= self._period_ends:
            # More than one period's is not saved: a busy time is not to pay for a quiet one.
            self._balance = min(self._balance, max(self._earned, _WORTH * _CHANGE_NS))
            self._earned = 0
            self._period_ends = now + self._chance.uniform(*_PERIOD_S)
            self.on |= self._balance + self._lent >= _WORTH * _CHANGE_NS
            if self._balance >= _WORTH * _CHANGE_NS:
                self._lent = 0
        left = self._balance + self._lent - _CHANGE_NS
        if self.on and left <= 0:
            self.on = False
            self._lent = 0
        self.next_s = self._period_ends
        if self.on:
            # As it was when they were on last.
            lasts = left / self._loss_a_second if self._loss_a_second > 0 else math.inf
            self.next_s = now + min(max(lasts / 2, _CHECK_S[0]), _CHECK_S[1])
        return self.on


def cpu_ns(pid: int) -> int:
    """CPU time of a process so far.

    Raises:
        OSError: It has ended.
    """
    # The kernel's number for the clock of another process (include/linux/posix-timers_types.h).
    return time.clock_gettime_ns(~pid << 3 | 2)


class Switch(Protocol):
    """What turns the probes of processes off and on."""

    def cost_of(self, number: int) -> int:
        """What they cost one so far, ns of its CPU time."""

    def change(self, off: Sequence[int], on: Sequence[int]) -> tuple[int, list[int]]:
        """Does so; the CPU time that took, ns, and which processes are not to be changed again."""


@dataclass
class _Kept:
    pid: int
    account: Account
    cpu_before_ns: int
    changes_ns: int = 0
    ended: bool = False


class Budget:
    """Keeps the probes of processes within a share of what these use, on a thread of its own.

    Args:
        share: 0.02 for 2 %.
        switch: What it turns.
    """

    def __init__(self, share: float, switch: Switch) -> None:
        self.share = share
        self._switch = switch
        self._kept: dict[int, _Kept] = {}
        self._chance = random.Random(1)
        self._stop = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sltrace-go-budget", daemon=True)

    def keep(self, number: int, pid: int, spent_ns: int, *, on: bool) -> None:
        """Takes in a process.

        Args:
            number: Which: what it becomes by exec is another.
            pid: Its number for the kernel.
            spent_ns: CPU time it took to put its probes in.
            on: Whether they still are.
        """
        try:
            before = cpu_ns(pid)
        except OSError:
            return
        account = Account(self.share, time.monotonic(), self._chance, on=on, put_in_ns=spent_ns)
        self._kept[number] = _Kept(pid, account, before, spent_ns)
        self._woken.set()

    def end(self, number: int) -> None:
        """It has ended, or become another program."""
        if kept := self._kept.get(number):
            kept.ended = True

    def forget(self, number: int) -> None:
        """Of one that has ended nothing more will be asked."""
        self._kept.pop(number, None)

    def start(self) -> None:
        """Begins to watch, if that has not begun."""
        if not self._thread.ident:
            self._thread.start()

    def stop(self) -> None:
        """Changes nothing any more."""
        self._stop = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def figures(self, number: int) -> dict[str, int]:
        """CPU time of a process since its probes were put in, and what they took of it, ns."""
        if (kept := self._kept.get(number)) is None:
            return {}
        return {"cpu_ns": kept.account.cpu_ns, "spent_ns": kept.account.spent_ns}

    def _run(self) -> None:
        # It may be started by the reader, and must not inherit its priority.
        priority.lower()
        while not self._stop:
            self._turn()
            kept = [k for k in list(self._kept.values()) if not k.ended]
            next_s = min((k.account.next_s for k in kept), default=math.inf)
            wait = None if next_s == math.inf else max(next_s - time.monotonic(), 0)
            self._woken.wait(wait)
            self._woken.clear()

    def _turn(self) -> None:
        """Asks for all that are due, and does what they say."""
        off: list[int] = []
        on: list[int] = []
        for number, kept in list(self._kept.items()):
            account, now = kept.account, time.monotonic()
            if kept.ended or now < account.next_s:
                continue
            was_on = account.on
            try:
                used = cpu_ns(kept.pid) - kept.cpu_before_ns
            except OSError:
                kept.ended = True
                continue
            spent = round(self._switch.cost_of(number) * _BESIDE) + kept.changes_ns
            if account.ask(now, used, spent) != was_on:
                (off if was_on else on).append(number)
        if not off and not on:
            return
        spent, ended = self._switch.change(off, on)
        for number in (*off, *on):
            # It may have been forgotten meanwhile.
            if changed := self._kept.get(number):
                changed.changes_ns += spent // (len(off) + len(on))
                changed.ended |= number in ended
