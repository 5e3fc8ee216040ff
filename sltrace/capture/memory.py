"""Memory that is free in this process, but not yet for others."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Returns it to the system, where the C library can (glibc).

    Loading the probes takes the kernel's BTF apart; of what is freed after it, glibc keeps 17 MB
    (measured, Debian 12).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
