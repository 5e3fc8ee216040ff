"""Go's wait reasons in plain words."""

from __future__ import annotations

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
    "preempted": "was preempted (10 ms were over, or world stopped)",
    "yielded": "gave its P to others",
    "system call": "came back from a system call",
}


def explain(reason: str | None) -> str:
    """What a reason means; one that is not known stands for itself."""
    return _WORDS.get(reason or "", reason or "not known")
