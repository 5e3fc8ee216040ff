"""The two clocks of a recording: one from the other's time, and whether the wall clock was set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sltrace.errors import TraceError

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_SAME_BOOT_NS = 1_000_000_000
"""Monotonic clocks of one boot differ from the wall clock by the same, but for its corrections."""
_STEPPED_NS = 10_000_000
"""More than the two readings are apart. The kernel slews both clocks alike: however long something
is recorded, they differ only by how the wall clock was set, and by suspends."""


@dataclass(frozen=True)
class Clock:
    """The monotonic clock of a trace and the wall clock at its ends, ns.

    `furthest_ns` is by how much the wall clock was ahead of the monotonic one, since the start,
    when they were furthest apart: negative where it was behind.
    """

    start_ns: int
    end_ns: int
    start_unix_ns: int
    end_unix_ns: int
    furthest_ns: int = 0

    @classmethod
    def of(cls, trace: Trace) -> Clock:
        """That of a trace.

        Raises:
            TraceError: It does not say when it was recorded.
        """
        value = trace.meta.get("clock")
        clock = value if isinstance(value, dict) else {}
        times = [clock.get(name) for name in ("start_ns", "end_ns", "start_unix_ns", "end_unix_ns")]
        known = [t for t in times if isinstance(t, int) and 0 <= t < 2**62]
        if len(known) != len(times):
            raise TraceError(f"{trace.path} does not say when it was recorded", "leave it out")
        start_ns, end_ns, start_unix_ns, end_unix_ns = known
        return cls(start_ns, end_ns, start_unix_ns, end_unix_ns, furthest_ns(clock))

    @property
    def ahead_ns(self) -> int:
        """By how much the wall clock went further than the monotonic one."""
        return self.end_unix_ns - self.start_unix_ns - (self.end_ns - self.start_ns)

    @property
    def stepped(self) -> bool:
        """The wall clock was set during the recording."""
        return _is_step(self.ahead_ns) or self.set_back

    @property
    def set_back(self) -> bool:
        """The wall clock was set, and was right again at the end."""
        return _is_step(self.furthest_ns) and not _is_step(self.ahead_ns)

    def unix(self, ns: int) -> int:
        """Wall clock at a monotonic time, as it was set at the start."""
        return self.start_unix_ns + ns - self.start_ns

    def monotonic(self, unix_ns: int) -> int:
        """Monotonic time at a time of the wall clock, as it was set at the start."""
        return self.start_ns + unix_ns - self.start_unix_ns

    def of_one_boot(self, other: Clock) -> bool:
        """Whether both are of one boot of one machine, if they are of one machine."""
        ahead = [clock.start_unix_ns - clock.start_ns for clock in (self, other)]
        return abs(ahead[0] - ahead[1]) <= _SAME_BOOT_NS


def furthest_ns(clock: object) -> int:
    """That of a trace's `clock`; 0 where it is unknown, as in traces before there was one."""
    found = clock.get("furthest_ns") if isinstance(clock, dict) else None
    return found if isinstance(found, int) and abs(found) < 2**62 else 0


def _is_step(ns: int) -> bool:
    return abs(ns) > _STEPPED_NS
