"""Profiles beside the waits: one tree of frames for both, and what samples can be selected by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.cubeowners import NOBODY, Owner, Owners
from sltrace.analysis.meta import clock_ns

if TYPE_CHECKING:
    from sltrace.analysis.cube import Cube
    from sltrace.profiles.pprof import Profile, ProfileFrame, Unit, Window
    from sltrace.trace.reader import Trace

MAX_OWNED = 50_000
"""Rows that keep whose they are and when they were sampled, those with the most time."""

_Row = tuple[int, int, Owner, "Window | None"]
"""Profile, stack, whose, and when."""

_SECOND = 1e9
_LANGUAGES = {".go": "go", ".s": "go", ".py": "python"}


@dataclass(frozen=True)
class MergedProfile:
    """What a page says about a profile in it.

    Attributes:
        where: Path or URL.
        measure: What its values are: cpu, delay, goroutine ...
        unit: What they are in.
        on_cpu: Whether they are time on the CPU.
        total: All of it.
        sentence: The same in words.
    """

    where: str
    measure: str
    unit: Unit
    on_cpu: bool
    total: int
    sentence: str


def merge_profiles(trace: Trace, cube: Cube, profiles: Sequence[Profile]) -> Cube:
    """The cube with the profiles' stacks among its own, and `profile_rows` for their values.

    A function is the same by its name. Runtimes leave the outermost frames out of profiles: a
    profile's stack begins where the trace's stacks have its outermost function, unless it is known
    to be complete.
    """
    frames, languages = list(cube.frames), list(cube.frame_kinds)
    index = {name: i for i, name in reversed(list(enumerate(frames)))}
    mapped: list[list[tuple[int, ...]]] = []
    for profile in profiles:
        number = []
        for frame in profile.frames:
            if frame.name not in index:
                index[frame.name] = len(frames)
                frames.append(frame.name)
                languages.append(_language(frame))
            number.append(index[frame.name])
        mapped.append([tuple(number[i] for i in stack) for stack in profile.stacks])
    cut = [stacks for p, stacks in zip(profiles, mapped, strict=True) if not p.complete]
    before = _callers(cube, {stack[0] for stacks in cut for stack in stacks if stack})
    windows = _Windows(trace, cube)
    stacks = [list(s) for s in cube.stacks]
    known = {tuple(s): i for i, s in enumerate(stacks)}
    owners = Owners(trace, cube, (x for p in profiles for x in p.labels))
    rows: Counter[_Row] = Counter()
    for which, (profile, own) in enumerate(zip(profiles, mapped, strict=True)):
        when = profile.windows or [profile.window] * len(own)
        for stack, labels, window, value in zip(
            own, profile.labels, when, profile.values, strict=True
        ):
            above = () if profile.complete or not stack else before.get(stack[0], ())
            whole = (*above, *stack)
            if whole not in known:
                known[whole] = len(stacks)
                stacks.append(list(whole))
            rows[which, known[whole], owners[labels], windows[window]] += value
    rows, notes = _bounded(rows, [windows[p.window] for p in profiles])
    merged = [_described(trace, p) for p in profiles]
    whose = {owner: i for i, owner in enumerate(dict.fromkeys(row[2] for row in rows))}
    times = {window: i for i, window in enumerate(dict.fromkeys(row[3] for row in rows))}
    columns = {
        "profile": [row[0] for row in rows],
        "stack": [row[1] for row in rows],
        "owner": [whose[row[2]] for row in rows],
        "window": [times[row[3]] for row in rows],
        "value": list(rows.values()),
    }
    return replace(
        cube,
        frames=frames,
        frame_kinds=languages,
        stacks=stacks,
        profiles=merged,
        profile_rows={name: np.array(column, np.int64) for name, column in columns.items()},
        profile_owners=list(whose),
        profile_windows=list(times),
        notes=[*cube.notes, *(m.sentence for m in merged), *notes],
    )


class _Windows:
    """Times of the wall clock as times from the start of the cube, where the trace knows both."""

    def __init__(self, trace: Trace, cube: Cube) -> None:
        began = clock_ns(trace, "start_unix_ns")
        self._shift = clock_ns(trace, "start_ns") - began - cube.start_ns if began else None

    def __getitem__(self, window: Window | None) -> Window | None:
        if window is None or self._shift is None:
            return None
        return max(0, window[0] + self._shift), max(0, window[1] + self._shift)


def _bounded(
    rows: Counter[_Row], whole: Sequence[Window | None]
) -> tuple[Counter[_Row], list[str]]:
    """At most MAX_OWNED rows that say whose they are or when; a note says how many no longer do.

    Args:
        rows: All.
        whole: When each profile was taken.
    """
    telling = [r for r, _ in rows.most_common() if r[2] != NOBODY or r[3] != whole[r[0]]]
    small = telling[MAX_OWNED:]
    for row in small:
        which, stack = row[:2]
        rows[which, stack, NOBODY, whole[which]] += rows.pop(row)
    if not small:
        return rows, []
    return rows, [f"labels and times of the {len(small):,} smallest rows of profiles were left out"]


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


def _described(trace: Trace, profile: Profile) -> MergedProfile:
    began, ended = clock_ns(trace, "start_unix_ns"), clock_ns(trace, "end_unix_ns")
    words = f"{profile.where}: {profile.total / _SECOND:,.3g} s of {profile.measure}"
    if profile.unit == "count":
        words = f"{profile.where}: {profile.measure}, {profile.total:,} of them"
    if not profile.start_unix_ns or not began or not ended:
        words += "; it does not say when it was taken"
    elif profile.duration_ns:
        stop = profile.start_unix_ns + profile.duration_ns
        inside = max(0, min(stop, ended) - max(profile.start_unix_ns, began))
        outside = profile.duration_ns - inside
        words += f" in {profile.duration_ns / _SECOND:,.3g} s"
        if not inside:
            words += ", all of it before or after the recording"
        elif outside > profile.duration_ns // 100:
            words += f", {outside / _SECOND:,.3g} s of them before or after the recording"
    elif not began <= profile.start_unix_ns <= ended:
        words += ", taken before or after the recording"
    return MergedProfile(
        where=profile.where,
        measure=profile.measure,
        unit=profile.unit,
        on_cpu=profile.on_cpu,
        total=profile.total,
        sentence=words,
    )
