"""The thread on which the memory of Go processes is read, and new ones are looked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from sltrace.capture import priority
from sltrace.capture.golang.sampler import SCAN_S, TICK_S, Sampler
from sltrace.target.go.memory import UnreadableError

_SAMPLING_ONE_IN, _LOOKING_ONE_IN = 20, 4
"""Of a CPU, one part in so many at most: what it waits for a CPU itself is no work."""


class SamplerThread:
    """Runs the samplers of all processes on one thread of its own; it sleeps while there are none.

    Args:
        look: Called after `wake`, until it says that nothing is left to look at: samplers of
            processes that are new, and whether more may come.
    """

    def __init__(self, look: Callable[[], tuple[Sequence[Sampler], bool]]) -> None:
        self._look = look
        self._samplers: list[Sampler] = []
        self._end_ns = 0
        self._looking = True
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sltrace-go", daemon=True)
        self.started = False
        self.failure: Exception | None = None
        """What ended it early."""

    def start(self, samplers: Iterable[Sampler]) -> None:
        """Begins with these; only once."""
        self._samplers += samplers
        self.started = True
        self._thread.start()

    def wake(self) -> None:
        """There is something to look at."""
        self._looking = True
        self._woken.set()

    def end(self, end_ns: int) -> None:
        """Ends after a last scan, which is taken for one of that moment (CLOCK_MONOTONIC)."""
        self._end_ns = self._end_ns or end_ns
        self._woken.set()

    def stop(self) -> None:
        """Returns once it has ended."""
        self.end(time.monotonic_ns())
        if self.started and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # It may be started by the reader, and must not inherit its priority.
        priority.lower()
        try:
            self._work()
        except Exception as err:
            self.failure = err

    def _work(self) -> None:
        next_tick = next_scan = next_look = 0.0
        while True:
            end_ns = self._end_ns
            begin, used = time.monotonic(), time.thread_time()
            if end_ns or begin >= next_tick:
                due = bool(end_ns) or begin >= next_scan
                for sampler in self._alive():
                    self._sample(sampler, end_ns, scan=due)
                took = time.thread_time() - used
                # A scan of many goroutines must not become the machine's main work.
                if due:
                    next_scan = begin + max(SCAN_S, _SAMPLING_ONE_IN * took)
                next_tick = begin + max(TICK_S, 0 if due else _SAMPLING_ONE_IN * took)
            if end_ns:
                return
            if self._looking and begin >= next_look:
                next_look = self._look_once()
            self._sleep(next_tick, next_look)

    def _alive(self) -> list[Sampler]:
        return [s for s in self._samplers if s.ended_ns is None and not s.failure]

    def _look_once(self) -> float:
        """When to look again, if there is anything to look at."""
        begin, used = time.monotonic(), time.thread_time()
        # Before it looks: what comes meanwhile must not be lost.
        self._looking = False
        found, more = self._look()
        # Those that have ended hold what nobody else does any more.
        self._samplers = [s for s in self._samplers if s.ended_ns is None] + [*found]
        self._looking |= more
        return begin + max(TICK_S, _LOOKING_ONE_IN * (time.thread_time() - used))

    def _sleep(self, next_tick: float, next_look: float) -> None:
        until = [next_tick] * bool(self._alive()) + [next_look] * self._looking
        self._woken.wait(max(min(until) - time.monotonic(), 0) if until else None)
        self._woken.clear()

    def _sample(self, sampler: Sampler, end_ns: int, *, scan: bool) -> None:
        before = time.thread_time_ns()
        try:
            sampler.tick(end_ns or time.monotonic_ns())
            if scan:
                sampler.scan(end_ns or time.monotonic_ns())
        except UnreadableError:
            if not sampler.process.is_alive():
                sampler.end(time.monotonic_ns())
        except Exception as err:
            # What it reads may be anything; one process must not end the sampling of all.
            sampler.failure = f"its memory was not understood: {type(err).__name__}: {err}"
        sampler.cpu_ns += time.thread_time_ns() - before
