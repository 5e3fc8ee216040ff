"""Go's wait reasons in plain words, and what each means for the P and the kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Attributes: words; whether the wait is a system call; what becomes of the P meanwhile."""

    words: str
    system_call: bool
    p: str


_FREE = "goes on with other goroutines"
_PARKED = {
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
}
_OWN = {
    "new goroutine": Reason("was just started", False, _FREE),
    "preempted": Reason(
        "was preempted (10 ms were over, or the world was stopped)",
        False,
        "goes on with the next in line",
    ),
    "yielded": Reason("gave its P to others", False, "goes on with the next in line"),
    "system call": Reason("came back from a system call", True, "was handed to another thread"),
}


def explain(reason: str | None) -> Reason:
    """What a reason means; a reason that is not known stands for itself."""
    if reason in _OWN:
        return _OWN[reason]
    return Reason(_PARKED.get(reason or "", reason or "not known"), False, _FREE)
