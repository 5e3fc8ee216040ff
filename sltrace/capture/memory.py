"""Memory that is free in this process, but not yet for others."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""malloc.h"""


def use_one_heap() -> None:
    """Has the threads that are still to begin share one heap, where there are several (glibc).

    `give_back` trims the end of the main thread's only: 24 MB that another had freed all stayed,
    and what a recording freed after one burst stayed to its end, 5 MB (measured, Debian 12).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Returns it to the system, where the C library can (glibc).

    Loading the probes takes the kernel's BTF apart; of what is freed after it, glibc keeps 17 MB
    (measured, Debian 12).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
