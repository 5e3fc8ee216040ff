"""The writing thread: what was drained becomes part of the trace, on a timer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sltrace.capture import memory, priority
from sltrace.capture.accounts import Status
from sltrace.capture.feed import LOT, Feed

_LOOK_S = 0.05
"""How often it looks for what there is to do."""
SEGMENT_S = 0.5
"""How long a segment of waits is added to; a killed recorder loses at most this much."""
INTERVAL_S = 1.0
"""Length of the intervals of counters and histograms."""
GIVE_BACK_S = 10.0
"""How often free memory is given back: it takes 1.3 ms; bursts leave tens of MB (both measured)."""
_URGENT_BACKLOG = 2 * LOT
_URGENT_AFTER_S = 2 * SEGMENT_S
_LATE_AFTER_S = 0.15
"""Both since it last had nothing to do."""
_ROOMY_S = 2.0
"""Longer than a thread of the lowest priority waits for a CPU where others use all of it: 1 s."""


class Writing:
    """Writes what a feed was given, so that the rings are emptied meanwhile.

    Args:
        feed: What is written.
        close_interval: Writes what was counted since the last call; called every INTERVAL_S, and
            at the end.
    """

    def __init__(self, feed: Feed, close_interval: Callable[[], Status]) -> None:
        self.written = moment()
        """When the rings were emptied for what is already in the trace: `moment`."""
        self.failure: Exception | None = None
        """What ended it early."""
        self._feed = feed
        self._close_interval = close_interval
        self.next_segment_s = self._last_pause = time.monotonic()
        """When a segment is closed next, by time.monotonic."""
        self._closing = threading.Event()

    def start(self, report: Callable[[Status], None]) -> None:
        """Begins; `report` gets the status after each interval but the last."""
        self._thread = threading.Thread(target=self._run, args=(report,), daemon=True)
        self._thread.start()
        assert self._thread.native_id is not None
        self._priority = priority.Deferrable(self._thread.native_id)

    def adjust(self, lasts_s: float) -> None:
        """Makes the thread as urgent as it is where the fullest ring has room for so long."""
        busy_s = time.monotonic() - self._last_pause
        if self._feed.backlog > _URGENT_BACKLOG or busy_s > _URGENT_AFTER_S:
            urgency = priority.Urgency.NOW
        elif lasts_s < _ROOMY_S or busy_s > _LATE_AFTER_S:
            urgency = priority.Urgency.SOON
        else:
            urgency = priority.Urgency.LATER
        self._priority.adjust(urgency)

    def hurry(self) -> None:
        """Makes it as urgent as reading until it ends."""
        self._priority.adjust(priority.Urgency.NOW)
        self._priority.close()

    def close(self) -> None:
        """Returns once all that was put into the feed is written, or that has failed."""
        self._closing.set()
        self._thread.join()

    def _run(self, report: Callable[[Status], None]) -> None:
        self.next_segment_s = time.monotonic() + SEGMENT_S
        next_interval = time.monotonic() + INTERVAL_S
        next_give_back = time.monotonic() + GIVE_BACK_S
        try:
            while not self._closing.wait(_LOOK_S):
                now = self._last_pause = time.monotonic()
                encoded = moment()
                if now >= self.next_segment_s or self._feed.backlog > LOT:
                    self._feed.encode(sources=now >= self.next_segment_s)
                if now >= self.next_segment_s:
                    self._feed.close_segment()
                    self.written = encoded
                    self.next_segment_s = now + SEGMENT_S
                if now >= next_interval:
                    report(self._close_interval())
                    next_interval = now + INTERVAL_S
                if now >= next_give_back:
                    memory.give_back()
                    next_give_back = now + GIVE_BACK_S
            self._feed.encode(sources=True)
            self._feed.close_segment()
            self._close_interval()
        except Exception as err:
            self.failure = err


def moment() -> dict[str, int]:
    """Now, as the end in a trace's `clock`: CLOCK_MONOTONIC and the wall clock, in ns.

    Whoever loses the CPU between the two would find that the wall clock had been set: of three
    readings it is the closest.
    """
    readings = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(3)]
    end_ns, end_unix_ns, _ = min(readings, key=lambda reading: reading[2] - reading[0])
    return {"end_ns": end_ns, "end_unix_ns": end_unix_ns}
