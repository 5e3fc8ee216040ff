"""Stacks of a cube: pairs of kernel and user stack as lists of named frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sltrace.analysis.stacks import Frame, resolve_stacks

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

OTHER_STACK = -1
_OTHER = "(other stacks)"
_GONE = "[stack missing from the trace]"


@dataclass(frozen=True)
class IndexedStacks:
    """Stacks by index: see the attributes of the same names of Cube."""

    victim: NDArray[np.uint32]
    waker: NDArray[np.uint32]
    stacks: list[list[int]]
    frames: list[str]
    frame_kinds: list[str]


def index_stacks(
    trace: Trace, victims: NDArray[np.int64], wakers: NDArray[np.int64]
) -> IndexedStacks:
    """Stacks for pairs of (kernel, user) stack id; shape (n, 2) each.

    0 is no stack, OTHER_STACK one of those that were put together.
    """
    pairs = np.concatenate([victims, wakers])
    distinct, index = np.unique(pairs, axis=0, return_inverse=True)
    wanted = np.unique(distinct[distinct > 0])
    frames: list[Frame] = []
    parts: dict[int, NDArray[np.int64]] = {}
    if len(wanted):
        resolved = resolve_stacks(trace, wanted)
        frames, parts = list(resolved.frames), resolved.stacks
    other, gone = len(frames), len(frames) + 1
    stacks: list[list[int]] = [[]]
    position = np.zeros(len(distinct), np.int64)
    for i, (kernel, user) in enumerate(distinct.tolist()):
        if kernel == OTHER_STACK:
            stack = [other]
        else:
            # The user part is outside, the kernel part inside.
            stack = [f for part in (user, kernel) if part for f in parts.get(part, [gone])]
        if stack:
            position[i] = len(stacks)
            stacks.append([int(f) for f in stack])
    where = position[index.ravel()].astype(np.uint32)
    return IndexedStacks(
        victim=where[: len(victims)],
        waker=where[len(victims) :],
        stacks=stacks,
        frames=[f.name for f in frames] + [_OTHER, _GONE],
        frame_kinds=[_kind(f) for f in frames] + ["other", "other"],
    )


def _kind(frame: Frame) -> str:
    if frame.pid == 0:
        return "kernel"
    return "native" if frame.module or frame.name.startswith("[") else "jit"
