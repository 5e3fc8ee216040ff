"""Servers in C that wait for requests within the call of Python that started them."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from sltrace.symbols.mappings import Mapping, MappingRecorder

MODULES = ("pyuwsgi",)
_FILE = re.compile(rf"/({'|'.join(MODULES)})\.[^/]*$")


def mapped_servers(
    pid: int, modules: Container[str], proc: Path = Path("/proc")
) -> tuple[Mapping, ...]:
    """Where a process has such a server.

    Args:
        pid: Process.
        modules: Those of MODULES that are imported.
        proc: Where /proc is.
    """
    if not any(module in modules for module in MODULES):
        return ()
    return tuple(m for m in MappingRecorder(proc).read_maps(pid) if _FILE.search(m.path))
