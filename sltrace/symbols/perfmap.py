"""Functions that a JIT compiler wrote down: lines of `START SIZE NAME` in hex and text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_LINES = 1 << 20


class PerfMap:
    """A parsed perf map; lines that do not fit are passed over."""

    def __init__(self, text: bytes) -> None:
        found: dict[int, tuple[int, str]] = {}
        for line in text.split(b"\n", _MAX_LINES)[:_MAX_LINES]:
            fields = line.split(b" ", 2)
            try:
                start, size = int(fields[0], 16), int(fields[1], 16)
                # Later lines win: the address was used again.
                found[start] = (start + size, fields[2].decode(errors="replace"))
            except (ValueError, IndexError):
                continue
        usable = sorted(s for s in found if 0 <= s < found[s][0] < 1 << 64)
        self._starts: NDArray[np.uint64] = np.array(usable, np.uint64)
        self._rest = [found[s] for s in usable]

    def name(self, address: int) -> str | None:
        """The function that covers an address, which may be any: a walk can come to 0, say."""
        if not 0 <= address < 1 << 64:
            return None
        at = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        if at < 0 or address >= self._rest[at][0]:
            return None
        return self._rest[at][1]
