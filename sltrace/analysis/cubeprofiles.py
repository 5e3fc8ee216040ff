"""Profiles of time on the CPU beside the waits: one tree of frames for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.meta import clock_ns

if TYPE_CHECKING:
    from sltrace.analysis.cube import Cube
    from sltrace.profiles.pprof import Profile, ProfileFrame
    from sltrace.trace.reader import Trace

_SECOND = 1e9
_LANGUAGES = {".go": "go", ".s": "go", ".py": "python"}


@dataclass(frozen=True)
class MergedProfile:
    """What a page says about a profile in it.

    Attributes:
        where: Path or URL.
        measure: What its time is: cpu, delay ...
        total_ns: All of it.
        duration_ns: How long it took; 0 if unknown.
        outside_ns: How much of that was before or after the recording; None if unknown.
        sentence: The same in words.
    """

    where: str
    measure: str
    total_ns: int
    duration_ns: int
    outside_ns: int | None
    sentence: str


def merge_profiles(trace: Trace, cube: Cube, profiles: Sequence[Profile]) -> Cube:
    """The cube with the profiles' stacks among its own, and `profile_rows` for their time.

    A function is the same by its name. Runtimes leave the outermost frames out of profiles: a
    profile's stack begins where the trace's stacks have its outermost function.
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
    before = _callers(cube, {stack[0] for stacks in mapped for stack in stacks if stack})
    stacks = [list(s) for s in cube.stacks]
    known = {tuple(s): i for i, s in enumerate(stacks)}
    rows: Counter[tuple[int, int]] = Counter()
    for which, (profile, own) in enumerate(zip(profiles, mapped, strict=True)):
        for stack, ns in zip(own, profile.ns, strict=True):
            whole = (*before.get(stack[0], ()), *stack) if stack else ()
            if whole not in known:
                known[whole] = len(stacks)
                stacks.append(list(whole))
            rows[which, known[whole]] += ns
    merged = [_described(trace, p) for p in profiles]
    return replace(
        cube,
        frames=frames,
        frame_kinds=languages,
        stacks=stacks,
        profiles=merged,
        profile_rows={
            "profile": np.array([which for which, _ in rows], np.int64),
            "stack": np.array([stack for _, stack in rows], np.int64),
            "ns": np.array(list(rows.values()), np.int64),
        },
        notes=[*cube.notes, *(m.sentence for m in merged)],
    )


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
    return _LANGUAGES.get(PurePath(frame.file).suffix, "native")


def _described(trace: Trace, profile: Profile) -> MergedProfile:
    start, end = clock_ns(trace, "start_unix_ns"), clock_ns(trace, "end_unix_ns")
    words = f"{profile.where}: {profile.total_ns / _SECOND:,.3g} s of {profile.measure}"
    outside = None
    if profile.start_unix_ns and profile.duration_ns and start and end:
        stop = profile.start_unix_ns + profile.duration_ns
        inside = max(0, min(stop, end) - max(profile.start_unix_ns, start))
        outside = profile.duration_ns - inside
        words += f" in {profile.duration_ns / _SECOND:,.3g} s"
        if not inside:
            words += ", all of it before or after the recording"
        elif outside > profile.duration_ns // 100:
            words += f", {outside / _SECOND:,.3g} s of them before or after the recording"
    else:
        words += "; it does not say when it was taken"
    return MergedProfile(
        where=profile.where,
        measure=profile.measure,
        total_ns=profile.total_ns,
        duration_ns=profile.duration_ns,
        outside_ns=outside,
        sentence=words,
    )
