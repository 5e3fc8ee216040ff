"""Stacks of goroutines that are off their thread, by frame pointers, all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sltrace.target.go.memory import Memory
from sltrace.target.memory import TOP

DEPTH = 64
_CHUNK, _FRAME = 2048, 16
_ROUNDS = 4
"""Pieces of a stack that are read: 8 KB hold 64 frames of most programs."""


@dataclass(frozen=True)
class Stacks:
    """Addresses, innermost first, by goroutine: shape (n, DEPTH), and how many are in use."""

    addresses: NDArray[np.uint64]
    depth: NDArray[np.int64]

    def ids(self, pid: int, program: int) -> NDArray[np.uint64]:
        """63-bit hash of each within a program of a process, never 0."""
        hashed = np.full(len(self.depth), 0x2545F4914F6CDD1D ^ pid ^ program << 32, np.uint64)
        for i in range(int(self.depth.max(initial=0))):
            mixed = (hashed ^ self.addresses[:, i]) * np.uint64(0xFF51AFD7ED558CCD)
            hashed = np.where(i < self.depth, mixed ^ (mixed >> np.uint64(32)), hashed)
        ids: NDArray[np.uint64] = np.maximum(hashed >> np.uint64(1), np.uint64(1))
        return ids


def walk(
    memory: Memory,
    pcs: NDArray[np.uint64],
    frames: NDArray[np.uint64],
    tops: NDArray[np.uint64],
) -> Stacks:
    """Follows frame pointers, upwards only and never beyond a goroutine's own stack.

    Args:
        memory: Of the process.
        pcs: Where each goroutine goes on.
        frames: Its frame pointer there; 0 for none.
        tops: End of its stack.

    Raises:
        UnreadableError: The process cannot be read any more.
    """
    n = len(pcs)
    # Last places of a frame, so that nothing is added to what may be any number.
    lasts = np.clip(tops, _FRAME, TOP) - np.uint64(_FRAME)
    addresses = np.zeros((n, DEPTH), np.uint64)
    depth = np.ones(n, np.int64)
    # A goroutine that never ran is at its function's first byte, others behind a call.
    addresses[:, 0] = pcs + (frames == 0)
    at = frames.copy()
    for _ in range(_ROUNDS):
        going = np.flatnonzero((at > 0) & (at <= lasts) & (depth < DEPTH))
        if not len(going):
            break
        base = at[going]
        chunk, read = memory.pieces(base, _CHUNK)
        _short_ones(memory, chunk, read, base, lasts[going])
        words = chunk.view(np.uint64)
        at[going[~read]] = 0
        going, base, words = going[read], base[read], words[read]
        for _ in range(DEPTH):
            inside = (at[going] >= base) & (at[going] <= base + (_CHUNK - _FRAME))
            inside &= (at[going] <= lasts[going]) & (depth[going] < DEPTH)
            going, base, words = going[inside], base[inside], words[inside]
            if not len(going):
                break
            index = ((at[going] - base) // 8).astype(np.int64)
            row = np.arange(len(going))
            following, back = words[row, index], words[row, index + 1]
            good = back != 0
            addresses[going[good], depth[going[good]]] = back[good]
            depth[going[good]] += 1
            at[going] = np.where(good & (following > at[going]), following, 0)
            alive = at[going] > 0
            going, base, words = going[alive], base[alive], words[alive]
    return Stacks(addresses, depth)


def _short_ones(
    memory: Memory,
    chunk: NDArray[np.uint8],
    read: NDArray[np.bool_],
    base: NDArray[np.uint64],
    lasts: NDArray[np.uint64],
) -> None:
    """Reads again, only up to the end of its stack, what ended before the whole piece did."""
    for i in np.flatnonzero(~read)[:64].tolist():
        size = int(lasts[i]) - int(base[i]) + _FRAME
        if size < _CHUNK:
            part, ok = memory.pieces(base[i : i + 1], size)
            chunk[i, :size], read[i] = part[0], ok[0]
