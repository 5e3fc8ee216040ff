"""How many files the recorder may have open."""

from __future__ import annotations

import contextlib
import resource


def raise_limit() -> None:
    """Goes up to the hard limit.

    There is a ring for every CPU, and every executable of which addresses were seen stays open
    until they are named; the soft limit of 1,024 is only for programs that use select().
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
