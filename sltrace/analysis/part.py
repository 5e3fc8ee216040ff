"""A stretch of a trace's time: as a trace of its own, and as the cube of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sltrace.analysis.cpusamples import cpu_labels, cpu_profile
from sltrace.analysis.cube import build_cube
from sltrace.analysis.cubedata import Cube
from sltrace.analysis.cubeowners import Owners
from sltrace.analysis.cubeprofiles import OwnedProfiles, Stretch
from sltrace.analysis.losses import IN_TIME
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.slices import CgroupRan
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.profiles.pprof import Profile
    from sltrace.trace.reader import Trace

_CONDITIONS = {"waits": "end_ns >= {start} AND end_ns < {end}", **IN_TIME}
"""Rows that belong to the stretch, by table."""


class Whole:
    """A recording, and what its parts need of all of it: looked up once.

    Attributes:
        trace: The recording.
        profiles: To show beside its waits.
    """

    def __init__(self, trace: Trace, profiles: Sequence[Profile] = ()) -> None:
        self.trace = trace
        self.profiles = profiles

    @cached_property
    def ran(self) -> CgroupRan:
        """What the culprits' cgroups ran."""
        return CgroupRan.of(self.trace)

    @cached_property
    def _owners(self) -> Owners:
        labels = [x for p in self.profiles for x in p.labels]
        return Owners(self.trace, [*labels, *(() if self._on_cpu else cpu_labels(self.trace))])

    @property
    def _on_cpu(self) -> bool:
        """Whether a profile tells of time on the CPU."""
        return any(profile.on_cpu for profile in self.profiles)

    def cube(self) -> Cube:
        """Of all of it, with the profiles."""
        return self.with_profiles(build_cube(self.trace, ran=self.ran))

    def part(self, start_ns: int, end_ns: int, bins: int) -> Cube:
        """Of the waits that `part_of` has, in at most so many time bins.

        Raises:
            UsageError: It is empty, or the trace has no single waits.
            TraceError: The trace is damaged.
        """
        return build_cube(part_of(self.trace, start_ns, end_ns), time_bins=bins, ran=self.ran)

    def with_profiles(self, cube: Cube, of: Stretch | None = None) -> Cube:
        """The cube with what of the profiles belongs to its stretch; None is all of it.

        The recording's own CPU samples are one of them, unless another tells of the same time.
        """
        own = None if self._on_cpu else cpu_profile(self.trace, cube, of)
        profiles = [*self.profiles, own] if own else self.profiles
        if not profiles:
            return cube
        return OwnedProfiles(self.trace, profiles, self._owners).beside(cube, of)


def part_of(trace: Trace, start_ns: int, end_ns: int) -> Trace:
    """The waits that ended from `start_ns` on and before `end_ns` (CLOCK_MONOTONIC).

    Raises:
        UsageError: It is empty, or the trace has no single waits.
        TraceError: The trace is damaged.
    """
    if trace.meta.get("histogram_only"):
        raise UsageError("this trace has histograms only", "record without --histogram-only")
    if not 0 <= start_ns < end_ns < 1 << 63:
        raise UsageError("this part of the time is empty", "give an end after the start")
    clock = {
        "start_unix_ns": clock_ns(trace, "start_unix_ns") + start_ns - clock_ns(trace, "start_ns"),
        "start_ns": start_ns,
        "end_ns": end_ns,
    }
    part = type(trace)(trace.path, {**trace.meta, "clock": clock})
    part.narrow({t: c.format(start=start_ns, end=end_ns) for t, c in _CONDITIONS.items()})
    return part
