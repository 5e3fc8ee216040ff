"""Which stacks were handed on before: each is written once, and they may be many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Seen:
    """Ids that came before; at most so many, 8 bytes each.

    Args:
        limit: How many are taken in.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.refused = 0
        """Ids that there was no room for; one that comes again counts again."""

    def new(self, ids: NDArray[np.uint64]) -> NDArray[Any]:
        """Where ids that did not come before are, each once."""
        distinct, first = np.unique(ids, return_index=True)
        at = np.searchsorted(self._known, distinct)
        fresh = np.ones(len(distinct), np.bool_)
        within = at < len(self._known)
        fresh[within] = self._known[at[within]] != distinct[within]
        chosen = np.flatnonzero(fresh)[: max(self._limit - len(self._known), 0)]
        self.refused += int(np.count_nonzero(fresh)) - len(chosen)
        if len(chosen):
            self._known = np.insert(self._known, at[chosen], distinct[chosen])
        return first[chosen]
