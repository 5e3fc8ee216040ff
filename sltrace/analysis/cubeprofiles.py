"""Profiles beside the waits: one tree of frames for both, and what samples can be selected by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.cubedata import NOBODY, MergedProfile, Owner
from sltrace.analysis.cubeowners import Owners
from sltrace.analysis.meta import clock_notes, clock_ns, gaps, recorded_ns
from sltrace.durations import format_duration

if TYPE_CHECKING:
    from sltrace.analysis.cubedata import Cube
    from sltrace.profiles.pprof import Profile, ProfileFrame, Window
    from sltrace.trace.reader import Trace

MAX_OWNED = 50_000
"""Rows that keep whose they are, or when they were taken, those with the most time."""

_LANGUAGES = {".go": "go", ".s": "go", ".py": "python"}


@dataclass(frozen=True)
class Stretch:
    """A stretch of a recording's time.

    Attributes:
        start_ns: Where it begins (CLOCK_MONOTONIC).
        end_ns: Where it ends.
    """

    start_ns: int
    end_ns: int


_Key = tuple[int, int, Owner, int]
"""A row: number of the profile, of the stack, whose, and number of the window."""


class OwnedProfiles:
    """Profiles of a recording, and whose their samples are.

    A function is the same by its name. Runtimes leave the outermost frames out of profiles: a
    profile's stack begins where the trace's stacks have its outermost function, unless it is known
    to be complete.

    Args:
        trace: The recording.
        profiles: They.
        owners: Of at least their labels.
    """

    def __init__(self, trace: Trace, profiles: Sequence[Profile], owners: Owners) -> None:
        self._trace = trace
        self._profiles = profiles
        self._owners = owners

    def beside(self, cube: Cube, part: Stretch | None = None) -> Cube:
        """The cube with the profiles' stacks among its own, and `profile_rows` for their values.

        Args:
            cube: Of the recording, or of the part.
            part: What the cube is of: samples from outside its time are left out, and of those from
                a time that is partly in it all but those of traces that waited in it.
        """
        frames = _Frames(cube)
        mapped = [frames.stacks_of(p) for p in self._profiles]
        cut = [own for p, own in zip(self._profiles, mapped, strict=True) if not p.complete]
        before = _callers(cube, {stack[0] for own in cut for stack in own if stack})
        stacks = [list(s) for s in cube.stacks]
        known = {tuple(s): i for i, s in enumerate(stacks)}
        owners = self._owners.of(cube)
        windows = _Windows(self._trace, cube)
        fits = _Fits(self._trace, part)
        rows: Counter[_Key] = Counter()
        merged = []
        for which, (profile, own) in enumerate(zip(self._profiles, mapped, strict=True)):
            whole_time = (profile.start_unix_ns, profile.duration_ns)
            windows.own.append(windows.number(whole_time))
            outside = 0
            for i, (stack, labels, value) in enumerate(
                zip(own, profile.labels, profile.values, strict=True)
            ):
                window = profile.windows[i] if profile.windows else whole_time
                if not fits(self._owners.times(labels), windows.recorded(window)):
                    outside += value
                    continue
                above = () if profile.complete or not stack else before.get(stack[0], ())
                whole = (*above, *stack)
                if whole not in known:
                    known[whole] = len(stacks)
                    stacks.append(list(whole))
                owner = owners.get(labels, NOBODY)
                rows[which, known[whole], owner, windows.number(window)] += value
            merged.append(_described(self._trace, profile, outside))
        rows, notes = _bounded(rows, windows.own)
        notes += placement_notes(self._trace, self._profiles)
        whose = {owner: i for i, owner in enumerate(dict.fromkeys(o for _, _, o, _ in rows))}
        columns = {
            "profile": [which for which, _, _, _ in rows],
            "stack": [stack for _, stack, _, _ in rows],
            "owner": [whose[owner] for _, _, owner, _ in rows],
            "window": [window for _, _, _, window in rows],
            "value": list(rows.values()),
        }
        return replace(
            cube,
            frames=frames.names,
            frame_kinds=frames.languages,
            stacks=stacks,
            profiles=merged,
            profile_rows={name: np.array(column, np.int64) for name, column in columns.items()},
            profile_owners=list(whose),
            profile_windows=windows.times,
            notes=[*cube.notes, *(m.sentence for m in merged), *notes],
        )


def placement_notes(trace: Trace, profiles: Sequence[Profile]) -> list[str]:
    """What must be said of how profiles are placed."""
    by_wall = any(p.start_unix_ns and not p.placed for p in profiles)
    return clock_notes(trace, "profiles from files") if by_wall else []


class _Frames:
    """The frames of a cube, and those that profiles add, by name."""

    def __init__(self, cube: Cube) -> None:
        self.names, self.languages = list(cube.frames), list(cube.frame_kinds)
        self._index = {name: i for i, name in reversed(list(enumerate(self.names)))}

    def stacks_of(self, profile: Profile) -> list[tuple[int, ...]]:
        """Its stacks, by these frames."""
        number = []
        for frame in profile.frames:
            if frame.name not in self._index:
                self._index[frame.name] = len(self.names)
                self.names.append(frame.name)
                self.languages.append(_language(frame))
            number.append(self._index[frame.name])
        return [tuple(number[i] for i in stack) for stack in profile.stacks]


class _Windows:
    """When samples were taken, by number.

    Attributes:
        times: Start and end from the start of the cube; None where unknown.
        own: Of each profile its whole time.
    """

    def __init__(self, trace: Trace, cube: Cube) -> None:
        began = clock_ns(trace, "start_unix_ns")
        self._shift = clock_ns(trace, "start_ns") - began if began else None
        self._start_ns = cube.start_ns
        self._index: dict[Window, int] = {}
        self.own: list[int] = []

    def number(self, window: Window) -> int:
        """Its number, a new one at first sight."""
        return self._index.setdefault(window, len(self._index))

    def recorded(self, window: Window) -> tuple[int, int] | None:
        """On the clock of the recording; None where unknown."""
        start, duration = window
        if not start or self._shift is None:
            return None
        return start + self._shift, start + self._shift + duration

    @property
    def times(self) -> list[tuple[int, int] | None]:
        """See the class."""
        found = [self.recorded(window) for window in self._index]
        return [f and (f[0] - self._start_ns, f[1] - self._start_ns) for f in found]


class _Fits:
    """Whether a sample belongs to a part: as it does to a selection of that part's time."""

    def __init__(self, trace: Trace, part: Stretch | None) -> None:
        # A profile that began before the recording belongs to the recording's first moment.
        self._from = self._to = None
        if part and part.start_ns > clock_ns(trace, "start_ns"):
            self._from = part.start_ns
        if part and part.end_ns < clock_ns(trace, "end_ns"):
            self._to = part.end_ns

    def __call__(self, waited: tuple[int, int] | None, taken: tuple[int, int] | None) -> bool:
        """Tells by when it was taken; if only a part of that is in it, by when its trace waited."""
        first, last = self._from, self._to
        if first is None and last is None:
            return True
        if taken:
            start, end = taken
            if (first is None or start >= first) and (last is None or end <= last):
                return True
            if not self._touches(taken):
                return False
        return waited is not None and self._touches(waited)

    def _touches(self, time: tuple[int, int]) -> bool:
        start, end = time
        first, last = self._from, self._to
        return (first is None or end > first) and (last is None or start < last)


def _bounded(rows: Counter[_Key], own: Sequence[int]) -> tuple[Counter[_Key], list[str]]:
    """At most MAX_OWNED rows that are somebody's, or of a time of their own.

    The others become nobody's and of their whole profile; a note says how many.
    """

    def apart(key: _Key) -> bool:
        which, _, owner, window = key
        return owner != NOBODY or window != own[which]

    small = [key for key, _ in rows.most_common() if apart(key)][MAX_OWNED:]
    for key in small:
        which, stack, _, _ = key
        rows[which, stack, NOBODY, own[which]] += rows.pop(key)
    if not small:
        return rows, []
    return rows, [
        f"the labels and times of the {len(small):,} smallest rows of profiles were left out"
    ]


def _callers(cube: Cube, roots: set[int]) -> dict[int, tuple[int, ...]]:
    """What is above each of these frames in the stacks where most time was lost below it."""
    time = np.bincount(cube.rows["stack"], cube.rows["sum_ns"], minlength=len(cube.stacks))
    weights: dict[int, Counter[tuple[int, ...]]] = {root: Counter() for root in roots}
    for stack, ns in zip(cube.stacks, time.tolist(), strict=True):
        for depth, frame in enumerate(stack):
            if frame in roots:
                weights[frame][tuple(stack[:depth])] += ns
                break
    return {root: found.most_common(1)[0][0] for root, found in weights.items() if found}


def _language(frame: ProfileFrame) -> str:
    return frame.language or _LANGUAGES.get(PurePath(frame.file).suffix, "native")


def _not_recorded(trace: Trace) -> str:
    return "when nothing was recorded" if gaps(trace) else "before or after the recording"


def _described(trace: Trace, profile: Profile, outside: int) -> MergedProfile:
    began, ended = clock_ns(trace, "start_unix_ns"), clock_ns(trace, "end_unix_ns")
    words = f"{profile.where}: {format_duration(profile.total)} of {profile.measure}"
    if profile.unit == "count":
        words = f"{profile.where}: {profile.measure}, {profile.total:,} of them"
        if (parts := len(set(profile.windows))) > 1:
            # What was there at several moments is counted at each of them.
            words += f", added up over {parts:,} profiles"
    if not (profile.start_unix_ns and began and ended):
        words += "; it does not say when it was taken"
    elif profile.duration_ns:
        start = profile.start_unix_ns + clock_ns(trace, "start_ns") - began
        inside = recorded_ns(trace, start, start + profile.duration_ns)
        sampled = profile.duration_ns - profile.paused_ns
        words += f" in {format_duration(sampled)}"
        if not inside:
            words += f", all of it {_not_recorded(trace)}"
        elif sampled - inside > sampled // 100:
            words += f", {format_duration(sampled - inside)} of them {_not_recorded(trace)}"
    elif not began <= profile.start_unix_ns <= ended:
        words += ", taken before or after the recording"
    return MergedProfile(
        where=profile.where,
        measure=profile.measure,
        unit=profile.unit,
        on_cpu=profile.on_cpu,
        total=profile.total,
        outside=outside,
        sentence=words,
    )
