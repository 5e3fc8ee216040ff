"""What the probes are told before they run: settings, and the tables of the filters."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sltrace.capture.maps import update_map
from sltrace.capture.settings import Settings, each_ns
from sltrace.errors import TargetError, UsageError
from sltrace.model import COMM_BYTES
from sltrace.names.proc import with_children

_YES = b"\1"
_ASK_LESS = "name fewer, or record without this filter: what is read of a trace can be chosen, too"
_MOST_SCANS = 10
"""A process that forks as fast as it is looked for must not keep a recording from beginning."""


@dataclass(frozen=True)
class Filter:
    """A filter's table.

    Attributes:
        what: It holds.
        key: Bytes of each.
        entries: How many it has room for.
    """

    what: str
    key: int
    entries: int


FILTERS = {
    "wanted_pids": Filter("processes", 4, 16384),
    "wanted_cgroups": Filter("cgroups", 8, 65536),
    "wanted_comms": Filter("names of threads", COMM_BYTES + 1, 64),
}
"""As in probes/filters.bpf.h."""


@dataclass(frozen=True)
class Targets:
    """The filters in the kernel's terms.

    Attributes:
        cgroup_ids: Says which cgroups are wanted, with those below that are there by then.
        hierarchy_id: cgroup tree the ids are from, as in /proc/cgroups; 0 for v2.
        cgroup_v1: Whether that tree is a v1 one.
        start_ns: When the recording begins.
        tags_fd: Map of task tags that runtimes' probes fill; -1 where none ever is.
        tagged: Whether they do so from the start; else from `take_tags` on.
    """

    cgroup_ids: Callable[[], Iterable[int]] = tuple
    hierarchy_id: int = 0
    cgroup_v1: bool = False
    start_ns: int = 0
    tags_fd: int = -1
    tagged: bool = False


def config_bytes(
    layout: np.dtype[Any], settings: Settings, targets: Targets, **sizes_: int
) -> bytes:
    """`struct config` of probes/wait_record.h for these settings."""
    config = np.zeros(1, layout)
    stacks = settings.stacks
    values: dict[str, int] = {
        "start_ns": targets.start_ns,
        "min_latency_ns": settings.min_latency_ns,
        "stack_min_ns": stacks.min_ns,
        "stack_ns": each_ns(stacks.rate_per_cpu),
        "policies": sum(1 << p for p in settings.filters.policies),
        "filter_pids": bool(settings.filters.pids),
        "filter_cgroups": bool(settings.filters.cgroups),
        "filter_comms": bool(settings.filters.comms),
        "filter_cpus": bool(settings.filters.cpus),
        "histogram_only": settings.histogram_only,
        "stack_kernel": stacks.kernel,
        "stack_user": stacks.user,
        "stack_waker": stacks.waker,
        "blocked": settings.blocked,
        "tags": targets.tags_fd >= 0,
        "cgroup_v1": targets.cgroup_v1,
        "hierarchy_id": targets.hierarchy_id,
        **sizes_,
    }
    for name, value in values.items():
        config[name] = value
    return config.tobytes()


def fill_filters(
    tables: Mapping[str, int], cpus: int, *, settings: Settings, targets: Targets
) -> None:
    """Fills the filters' maps.

    Args:
        tables: File descriptors by map name.
        cpus: Possible CPUs.
        settings: What the user asked for.
        targets: The same in the kernel's terms.

    Raises:
        TargetError: A CPU that is not there.
        UsageError: More than a filter has room for.
    """
    filters = settings.filters
    comms = {os.fsencode(c)[:COMM_BYTES].ljust(COMM_BYTES + 1, b"\0") for c in filters.comms}
    wanted = _wanted(filters.pids, targets) | {"wanted_comms": comms}
    for table, keys in wanted.items():
        room = FILTERS[table]
        if len(keys) > room.entries:
            raise UsageError(
                f"the filter holds {len(keys):,} {room.what}, at most {room.entries:,}", _ASK_LESS
            )
        for key in keys:
            update_map(tables[table], key, _YES)
    for cpu in filters.cpus:
        if cpu >= cpus:
            raise TargetError(f"there is no CPU {cpu}", f"CPUs are 0 to {cpus - 1}")
        update_map(tables["wanted_cpus"], cpu.to_bytes(4, "little"), _YES)


def want_born(tables: Mapping[str, int], *, settings: Settings, targets: Targets) -> int:
    """Adds to the filters what was born below their processes and cgroups while probes were loaded.

    For when births are followed and nobody has been decided on: a decision on a task is kept. What
    is found may have had children by then that are not followed: they are looked for again.

    Args:
        tables: File descriptors by map name.
        settings: What the user asked for.
        targets: The same in the kernel's terms.

    Returns:
        How many the filters had no room for.
    """
    refused = 0
    known: dict[str, set[bytes]] = {"wanted_pids": set(map(_pid, settings.filters.pids))}
    for _ in range(_MOST_SCANS):
        wanted = _wanted(with_children(settings.filters.pids), targets)
        found = {table: keys - known.get(table, set()) for table, keys in wanted.items()}
        if not any(found.values()):
            break
        for table, keys in found.items():
            refused += sum(not _add(tables[table], key) for key in keys)
        known = {table: keys | known.get(table, set()) for table, keys in wanted.items()}
    return refused


def _wanted(pids: Iterable[int], targets: Targets) -> dict[str, set[bytes]]:
    """Keys of the filters that follow births."""
    cgroups = {cgroup.to_bytes(8, "little") for cgroup in targets.cgroup_ids()}
    return {"wanted_pids": set(map(_pid, pids)), "wanted_cgroups": cgroups}


def _add(table: int, key: bytes) -> bool:
    """Whether there is room for it."""
    try:
        update_map(table, key, _YES)
    except OSError as err:
        if err.errno != errno.E2BIG:
            raise
        return False
    return True


def _pid(pid: int) -> bytes:
    return pid.to_bytes(4, "little")
