"""What ran in the time of each side of a comparison, by profiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sltrace.analysis.cubeprofiles import Stretch, placement_notes
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.part import Whole
from sltrace.durations import format_duration

if TYPE_CHECKING:
    from sltrace.analysis.sides import Side
    from sltrace.profiles.pprof import Profile


@dataclass(frozen=True)
class Running:
    """Time on the CPU.

    Attributes:
        stacks: Names of frames, root first, to time (ns).
        sentences: What the profiles are, and what of them is not in `stacks`.
    """

    stacks: Counter[tuple[str, ...]]
    sentences: tuple[str, ...]


def running(side: Side, stored: Sequence[Profile], more: Sequence[Profile]) -> Running:
    """What ran within the side's time, whoever it ran for: profiles know no cgroups or kinds.

    Args:
        side: It.
        stored: The profiles in its trace. Its CPU samples are taken from it.
        more: Profiles of which those count that say that they were taken within that time.

    Raises:
        TraceError: The trace is damaged.
    """
    end_ns = side.start_ns + side.span_ns
    profiles = [*stored, *(p for p in more if overlaps(side, p))]
    whole = Whole(side.trace, profiles)
    part = whole.part(side.start_ns, end_ns, 1)
    cube = whole.with_profiles(part, Stretch(side.start_ns, end_ns))
    stacks: Counter[tuple[str, ...]] = Counter()
    sentences = [
        p.sentence + (f"; {format_duration(p.outside)} of it left out" if p.outside else "")
        for p in cube.profiles
        if p.on_cpu
    ]
    if cube.profiles:
        columns = (cube.profile_rows[c].tolist() for c in ("profile", "stack", "value"))
        for profile, stack, value in zip(*columns, strict=True):
            if cube.profiles[profile].on_cpu:
                stacks[tuple(cube.frames[f] for f in cube.stacks[stack])] += value
    sentences += [f"{p.where}: not time on the CPU" for p in profiles if not p.on_cpu]
    sentences += placement_notes(side.trace, profiles)
    return Running(stacks, tuple(sentences))


def apart(sides: tuple[Side, Side]) -> bool:
    """Whether what ran for each can be told: by trace, or by time."""
    a, b = sides
    return (
        a.trace.path != b.trace.path
        or a.start_ns + a.span_ns <= b.start_ns
        or b.start_ns + b.span_ns <= a.start_ns
    )


def overlaps(side: Side, profile: Profile) -> bool:
    """Whether it says that it was taken within the side's time, in part at least."""
    began = clock_ns(side.trace, "start_unix_ns")
    if not began or not profile.start_unix_ns:
        return False
    start = began + side.start_ns - clock_ns(side.trace, "start_ns")
    taken = profile.start_unix_ns
    return taken < start + side.span_ns and taken + profile.duration_ns > start
