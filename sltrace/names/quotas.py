"""Whose CPU quota holds a cgroup's threads: its own, or that of a cgroup above it.

The kernel's clock of a queue runs while the quota of its cgroup or of any above it is used up, and
does not say which (tg_throttle_down in kernel/sched/fair.c). The cgroups' files do: of those on the
way up it is the one whose `cpu.stat` has grown most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from sltrace.names.hierarchy import Hierarchy, id_of, quota_of, throttled_ns

_READ_AFTER_S = 0.25
"""A file takes 40 us, and each cgroup on the way up has up to three (measured)."""
_READ_AT_ONCE = 16
_MAX_KNOWN = 1 << 12
_MAX_LEVELS = 32
"""Cgroups can be nested without a limit, also by who may not be trusted."""


@dataclass(slots=True)
class _Held:
    """By whose quota a cgroup was held at last."""

    holder: int
    throttled_ns: dict[str, int] = field(default_factory=dict)
    read_s: float = 0.0


class QuotaHolders:
    """Finds the cgroups whose quotas hold others.

    Args:
        hierarchy: The tree.
        path_of: Path of a cgroup by id.
    """

    def __init__(self, hierarchy: Hierarchy, path_of: Callable[[int], str]) -> None:
        self._hierarchy = hierarchy
        self._path_of = path_of
        self._known: dict[int, _Held] = {}

    def holding(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cgroup whose quota held each of these in the last second; itself if unknown.

        Args:
            ids: Of cgroups that were throttled.
        """
        if not len(ids):
            return ids
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        some, at = np.unique(ids, return_inverse=True)
        known = {number: self._known.setdefault(number, _Held(number)) for number in some.tolist()}
        due = time.monotonic() - _READ_AFTER_S
        # Those that were read longest ago come first.
        old = sorted((n for n in known if known[n].read_s <= due), key=lambda n: known[n].read_s)
        for number in old[:_READ_AT_ONCE]:
            self._read(known[number], self._path_of(number))
        return np.array([held.holder for held in known.values()], np.int64)[at]

    def _read(self, held: _Held, path: str) -> None:
        first, held.read_s = not held.read_s, time.monotonic()
        gone = id_of(self._hierarchy, path) is None
        if gone and not first:
            return
        throttled = {level: throttled_ns(self._hierarchy, level) for level in _upwards(path)}
        grown = {level: ns - held.throttled_ns.get(level, 0) for level, ns in throttled.items()}
        held.throttled_ns = throttled
        # What has grown since it was read tells also of a quota that was taken away since; what it
        # was before that may be of one taken away long ago.
        limited = []
        if first:
            limited = [level for level in throttled if quota_of(self._hierarchy, level)[0]]
        # The innermost of equals comes first.
        most = max(limited or throttled, key=grown.__getitem__, default=path)
        # Of one that is gone, nobody can say any more whether it had a quota itself.
        if grown.get(most) or (len(limited) == 1 and not gone):
            held.holder = id_of(self._hierarchy, most) or held.holder


def _upwards(path: str) -> Iterator[str]:
    """A cgroup and all above it but the root, which has no quota."""
    inner = PurePosixPath(path)
    for level in (inner, *inner.parents)[:_MAX_LEVELS]:
        if level.name:
            yield str(level)
