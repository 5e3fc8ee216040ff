"""Names of kernel addresses, from /proc/kallsyms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FILE = Path("/proc/kallsyms")
_TEXT = frozenset("tTwW")


def addresses_shown(file: Path = _FILE) -> bool:
    """Whether this process sees where the kernel's functions are (kptr_restrict).

    The first lines do not tell: before 6.15 they are per-CPU variables, whose address is 0.
    """
    try:
        with open(file, encoding="ascii", errors="replace") as lines:
            fields = (line.split(" ", 2) for line in lines)
            return next((int(f[0], 16) > 0 for f in fields if f[1] in _TEXT), False)
    except (OSError, ValueError, IndexError):
        return False


class KernelSymbols:
    """The kernel's functions as they are now; none where addresses are hidden.

    Args:
        file: The symbol table.
    """

    def __init__(self, file: Path = _FILE) -> None:
        found: dict[int, tuple[str, str]] = {}
        try:
            with open(file, encoding="ascii", errors="replace") as lines:
                for line in lines:
                    address, kind, rest = line.split(" ", 2)
                    if kind in _TEXT:
                        name, _, module = rest.strip().partition("\t")
                        found[int(address, 16)] = (name, module.strip("[]") or "[kernel]")
        except (OSError, ValueError):
            found = {}
        # kptr_restrict shows every address as zero.
        found.pop(0, None)
        self._starts: NDArray[np.uint64] = np.array(sorted(found), np.uint64)
        self._names = [found[a] for a in self._starts.tolist()]

    def __len__(self) -> int:
        return len(self._names)

    def names(self, addresses: NDArray[np.uint64]) -> list[tuple[str, str] | None]:
        """Function and module of each address; None below the first."""
        at = np.searchsorted(self._starts, addresses, side="right").astype(np.int64) - 1
        return [self._names[i] if i >= 0 else None for i in at.tolist()]
