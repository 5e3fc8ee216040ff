"""The thread on which the memory of Go processes is read, and new ones are looked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from sltrace.capture.golang.sampler import SCAN_S, TICK_S, Sampler
from sltrace.target.go.memory import UnreadableError

_LOOK_S = 1.0
_EAGER_S = 5.0
"""How long after the begin processes are looked for at every tick, while there is none: so that a
command is found as soon as it has begun."""


class SamplerThread:
    """Runs the samplers of all processes on one thread of its own.

    Args:
        look: Called now and then; samplers of processes that are new.
    """

    def __init__(self, look: Callable[[], Sequence[Sampler]]) -> None:
        self._look = look
        self._samplers: list[Sampler] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sltrace-go", daemon=True)
        self.started = False

    def start(self, samplers: Iterable[Sampler]) -> None:
        """Begins with these; only once."""
        self._samplers += samplers
        self.started = True
        self._thread.start()

    def stop(self) -> None:
        """Ends after a last scan."""
        self._stop.set()
        if self.started and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        next_scan = next_look = 0.0
        eager_until = time.monotonic() + _EAGER_S
        while True:
            last = self._stop.is_set()
            begin = time.monotonic()
            due = last or begin >= next_scan
            for sampler in self._samplers:
                if sampler.ended_ns is None:
                    self._sample(sampler, scan=due)
            took = time.monotonic() - begin
            if due:
                next_scan = begin + max(SCAN_S, 20 * took)
            if last:
                return
            if begin >= next_look:
                looking = time.monotonic()
                self._samplers += self._look()
                eager = not self._samplers and begin < eager_until
                wait = TICK_S if eager else _LOOK_S
                next_look = looking + max(wait, 20 * (time.monotonic() - looking))
            # A scan of many goroutines must not become the machine's main work.
            self._stop.wait(max(TICK_S, 20 * took * (not due)))

    def _sample(self, sampler: Sampler, *, scan: bool) -> None:
        before = time.thread_time_ns()
        try:
            if scan and not sampler.process.is_alive():
                raise UnreadableError("it has ended")
            sampler.tick(time.monotonic_ns())
            if scan:
                sampler.scan(time.monotonic_ns())
        except UnreadableError:
            if not sampler.process.is_alive():
                sampler.ended_ns = time.monotonic_ns()
        sampler.cpu_ns += time.thread_time_ns() - before
