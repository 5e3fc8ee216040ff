"""For each Go stack the two functions people look for: where it waits, and where it began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sltrace.analysis.frames import resolve_stacks

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_PARKING = ("runtime.gopark", "runtime.systemstack_switch")
_INTERNAL = ("runtime.", "internal/", "sync.", "time.Sleep", "[outside")
_UNKNOWN = "[not known]"


@dataclass(frozen=True)
class Site:
    """The innermost function that is not the runtime's own, and the goroutine's first.

    Of the runtime's own goroutines, the innermost that is not the one in which all park, or go over
    to their thread's stack, where they make others go on.
    """

    where: str
    started: str


UNKNOWN = Site(_UNKNOWN, _UNKNOWN)


def sites(trace: Trace, stack_ids: Iterable[int | None]) -> dict[int, Site]:
    """The sites of stacks by id; those that the trace lacks are left out."""
    wanted = np.array(sorted({i for i in stack_ids if i}), np.int64)
    if not len(wanted):
        return {}
    resolved = resolve_stacks(trace, wanted)
    found = {}
    for stack_id, frames in resolved.stacks.items():
        names = [resolved.frames[i].name for i in frames.tolist()]
        own = [n for n in names if not n.startswith(_INTERNAL)]
        own = own or [n for n in names if not n.startswith(_PARKING)] or names
        # The root of every stack is runtime.goexit, or runtime.main's caller.
        started = next((n for n in names if n != "runtime.goexit"), _UNKNOWN)
        found[stack_id] = Site(own[-1], started)
    return found
