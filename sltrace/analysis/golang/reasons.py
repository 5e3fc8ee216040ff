"""Go's wait reasons in plain words, and what a wait costs beside its time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """What a reason means.

    Attributes:
        words: Plain ones.
        system_call: Whether the wait costs a system call. Before one for the network the read or
            write was tried (waitRead after EAGAIN in internal/poll/fd_unix.go).
        hands_off_p: Whether its P is taken from its thread and given to another (retake in
            runtime/proc.go). Else the thread goes on with the P's next goroutine.
    """

    words: str
    system_call: bool = False
    hands_off_p: bool = False

    @property
    def costs(self) -> str:
        """The same in words; empty if it is time only."""
        handed = "; its P is handed off" if self.hands_off_p else ""
        return f"a system call{handed}" if self.system_call else ""


_WORDS = {
    "chan receive": "waits for a value from a channel",
    "chan send": "waits until a channel takes its value",
    "chan receive (nil chan)": "receives from a nil channel: for ever",
    "chan send (nil chan)": "sends to a nil channel: for ever",
    "select": "waits for one of several channels",
    "select (no cases)": "waits for ever (empty select)",
    "IO wait": "waits for the network (netpoller)",
    "sleep": "sleeps until a timer",
    "sync.Mutex.Lock": "waits for a mutex",
    "sync.RWMutex.Lock": "waits for a lock, to write",
    "sync.RWMutex.RLock": "waits for a lock, to read",
    "sync.Cond.Wait": "waits for a condition",
    "sync.WaitGroup.Wait": "waits until others are done",
    "semacquire": "waits for a semaphore",
    "coroutine": "waits for the other side of its iterator (iter.Pull)",
    "GC assist wait": "must help the garbage collector first",
    "GC assist marking": "helps the garbage collector",
    "wait for GC cycle": "waits for the garbage collector",
    "GC worker (idle)": "garbage collector's worker, idle",
    "finalizer wait": "runs finalizers, has none",
    "new goroutine": "was just started",
    "preempted": "was preempted (10 ms were over, or the world was stopped)",
    "yielded": "gave its P to others",
    "system call": "came back from a system call",
}
_SYSTEM_CALLS = {"IO wait": False, "system call": True}
"""And whether the P is handed off."""


def explain(reason: str | None) -> Reason:
    """What a reason means; one that is not known stands for itself."""
    words = _WORDS.get(reason or "", reason or "not known")
    return Reason(words, reason in _SYSTEM_CALLS, _SYSTEM_CALLS.get(reason or "", False))
