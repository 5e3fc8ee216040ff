"""Records on their way from the reading thread to the writing one."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.ring import join


class Handover:
    """What one thread puts in and another takes out, without a lock: each count has one writer."""

    def __init__(self) -> None:
        self._pieces: deque[NDArray[Any]] = deque()
        self._put = self._taken = 0

    def put(self, records: NDArray[np.void]) -> None:
        """Hands records over; all ever put in are of one type."""
        self._put += records.nbytes
        self._pieces.append(records)

    def take(self) -> NDArray[Any] | None:
        """All that was put in since, as one array; None if nothing was."""
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        if not pieces:
            return None
        records = join(pieces)
        self._taken += records.nbytes
        return records

    @property
    def backlog(self) -> int:
        """Bytes that were put in and not taken out."""
        return self._put - self._taken
