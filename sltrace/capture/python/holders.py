"""Where the holder of the GIL was while another waited, not only when that one began to.

Who gives the GIL up for a moment mostly waits for it from the moment at which another has just got
it: at first that one is where it takes its job, and it holds the GIL in what it does then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.model import Kind

KEEP_NS = 2_000_000_000
"""Samples of the last two seconds are looked at; of longer waits the end tells."""
MAX_KNOWN = 4096
_BITS = 32
"""Of a time within KEEP_NS, in ns."""
_PLACE = np.dtype([("tid", "i8"), ("first", "u8"), ("later_ns", "i8"), ("stack", "u8")])
"""A holder: its thread and stack when the wait began, how much later it was sampled, and in which
stack; 0 for not."""


class Holders:
    """Tells by CPU samples of the holder where it was.

    A sample is in one wait of three of 3 ms. A wait without one that began while the same thread
    was at the same place as in another is taken to be like that one, if it lasted until then.
    """

    def __init__(self) -> None:
        self._ns: NDArray[np.int64] = np.empty(0, np.int64)
        self._tid: NDArray[np.int64] = np.empty(0, np.int64)
        self._stack: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._known: NDArray[np.void] = np.empty(0, _PLACE)

    def sampled(self, samples: NDArray[Any]) -> None:
        """Takes `struct python_sample`s, of the time of the waits that `settle` gets next."""
        samples = samples[samples["tag"]["stack_runtime"] != 0]
        self._ns = np.append(self._ns, samples["ns"].astype(np.int64))
        self._tid = np.append(self._tid, samples["tid"].astype(np.int64))
        self._stack = np.append(self._stack, samples["tag"]["stack_runtime"])
        recent = self._ns > self._ns.max(initial=0) - KEEP_NS
        self._ns, self._tid, self._stack = self._ns[recent], self._tid[recent], self._stack[recent]

    def settle(self, waits: NDArray[Any]) -> None:
        """Sets `culprit_stack` of those `struct python_wait`s that are for the GIL."""
        at = np.flatnonzero((waits["kind"] == Kind.GIL) & (waits["culprit_tid"] != 0))
        if not len(at):
            return
        mine = waits[at]
        end, wait_ns = mine["end_ns"].astype(np.int64), mine["wait_ns"].astype(np.int64)
        places = np.zeros(len(at), _PLACE)
        places["tid"], places["first"] = mine["culprit_tid"], mine["culprit_stack"]
        places["later_ns"], places["stack"] = self._within(places["tid"], end - wait_ns, end)
        later_ns, stack = self._like(places)
        seen = (stack != 0) & (later_ns < wait_ns)
        waits["culprit_stack"][at] = np.where(seen, stack, places["first"])

    def _like(self, places: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """When each was sampled, and where; of others, the last before that began alike and was."""
        every = np.concatenate([self._known, places])
        order = np.lexsort((every["first"], every["tid"]))
        tid, first, stack = (every[name][order] for name in ("tid", "first", "stack"))
        number = np.arange(len(order))
        alike = (tid[1:] == tid[:-1]) & (first[1:] == first[:-1])
        begins = np.maximum.accumulate(np.where(np.append(False, alike), 0, number))
        sampled = np.maximum.accumulate(np.where(stack != 0, number, -1))
        # Where it began is not known of some.
        source = np.where((sampled >= begins) & (first != 0), sampled, number)
        origin = np.empty_like(order)
        origin[order] = order[source]
        mine = origin[len(self._known) :]
        last = ~np.append(alike, False) & (first != 0) & (stack[source] != 0)
        self._known = every[order[source[last]]] if last.sum() <= MAX_KNOWN else self._known[:0]
        return every["later_ns"][mine], every["stack"][mine]

    def _within(
        self, tid: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """How long after each start a thread was sampled, and its stack; 0 for no sample."""
        threads = np.unique(self._tid)
        after, stacks = np.zeros(len(tid), np.int64), np.zeros(len(tid), np.uint64)
        if not len(threads):
            return after, stacks
        since = int(self._ns.min())

        def key(number: NDArray[np.int64], ns: NDArray[np.int64]) -> NDArray[np.int64]:
            return number << _BITS | np.clip(ns - since, 0, (1 << _BITS) - 1)

        own = key(np.searchsorted(threads, self._tid), self._ns)
        order = np.argsort(own)
        number = np.searchsorted(threads, tid)
        known = number < len(threads)
        known[known] = threads[number[known]] == tid[known]
        low = np.searchsorted(own[order], key(number, start))
        high = np.searchsorted(own[order], key(number, end), side="right")
        found = known & (high > low)
        # In the middle: of several it is one at a moment by chance.
        chosen = order[(low + high)[found] // 2]
        after[found] = self._ns[chosen] - start[found]
        stacks[found] = self._stack[chosen]
        return after, stacks
