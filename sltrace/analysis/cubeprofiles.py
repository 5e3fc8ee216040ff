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
    from sltrace.profiles.pprof import Profile, ProfileFrame, Unit
    from sltrace.trace.reader import Trace

MAX_OWNED = 50_000
"""Rows that keep whose they are, those with the most time."""

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
        start_ns: When it began, from the start of the cube; None if unknown.
        end_ns: When it ended.
        sentence: The same in words.
    """

    where: str
    measure: str
    unit: Unit
    on_cpu: bool
    total: int
    start_ns: int | None
    end_ns: int | None
    sentence: str


def merge_profiles(trace: Trace, cube: Cube, profiles: Sequence[Profile]) -> Cube:
    """The cube with the profiles' stacks among its own, and `profile_rows` for their values.

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
    owners = Owners(trace, cube, (x for p in profiles for x in p.labels))
    rows: Counter[tuple[int, int, Owner]] = Counter()
    for which, (profile, own) in enumerate(zip(profiles, mapped, strict=True)):
        for stack, labels, value in zip(own, profile.labels, profile.values, strict=True):
            whole = (*before.get(stack[0], ()), *stack) if stack else ()
            if whole not in known:
                known[whole] = len(stacks)
                stacks.append(list(whole))
            rows[which, known[whole], owners[labels]] += value
    rows, notes = _bounded(rows)
    merged = [_described(trace, cube, p) for p in profiles]
    whose = {owner: i for i, owner in enumerate(dict.fromkeys(o for _, _, o in rows))}
    columns = {
        "profile": [which for which, _, _ in rows],
        "stack": [stack for _, stack, _ in rows],
        "owner": [whose[owner] for _, _, owner in rows],
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
        notes=[*cube.notes, *(m.sentence for m in merged), *notes],
    )


def _bounded(
    rows: Counter[tuple[int, int, Owner]],
) -> tuple[Counter[tuple[int, int, Owner]], list[str]]:
    """At most MAX_OWNED rows with an owner; the others are nobody's, and a note says how many."""
    small = [key for key, _ in rows.most_common() if key[2] != NOBODY][MAX_OWNED:]
    for which, stack, owner in small:
        rows[which, stack, NOBODY] += rows.pop((which, stack, owner))
    if not small:
        return rows, []
    return rows, [f"the labels of the {len(small):,} smallest rows of profiles were left out"]


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


def _described(trace: Trace, cube: Cube, profile: Profile) -> MergedProfile:
    began, ended = clock_ns(trace, "start_unix_ns"), clock_ns(trace, "end_unix_ns")
    start = end = None
    words = f"{profile.where}: {profile.total / _SECOND:,.3g} s of {profile.measure}"
    if profile.unit == "count":
        words = f"{profile.where}: {profile.measure}, {profile.total:,} of them"
    if profile.start_unix_ns and began:
        shift = clock_ns(trace, "start_ns") - began - cube.start_ns
        start = profile.start_unix_ns + shift
        end = start + profile.duration_ns
    if start is None or not ended:
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
        start_ns=start,
        end_ns=end,
        sentence=words,
    )
