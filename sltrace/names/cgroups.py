"""cgroup ids and paths, also of cgroups that are gone.

An id is the kernfs inode of the cgroup's directory, so it can be read with stat(2), and opened
by a file handle of type FILEID_KERNFS (include/linux/exportfs.h) that is the id itself.
"""

from __future__ import annotations

import ctypes as c
import os
import time
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.errors import TargetError
from sltrace.names.containers import identify
from sltrace.names.hierarchy import Hierarchy, quota_of, walk

MKDIR, RMDIR, RENAME = 1, 2, 3
"""enum cgroup_event_kind in probes/wait_record.h"""

_FILEID_KERNFS = 0xFE
_MAX_KNOWN = 1 << 13
"""Cgroups from which on those that are gone are let go."""
_KEEP_GONE_NS = 10_000_000_000
"""For so long waits of theirs may still come from the rings."""
_READ_AT_ONCE = 64
"""Cgroups whose quotas are read anew each time rows are asked for, once a second: 1 ms."""


@dataclass(slots=True)
class _Group:
    path: str
    created_ns: int | None = None
    removed_ns: int | None = None
    gone_ns: int | None = None
    """When it was removed, or was not found any more."""
    limits: tuple[int | None, int | None] = field(default=(None, None))
    changed: bool = True


class CgroupNames:
    """Paths of cgroups by id; remembers them after removal.

    Args:
        hierarchy: The tree.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._groups: dict[int, _Group] = {}
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._paths: list[str] = []
        self._to_read: list[int] = []
        self._asked: dict[str, int] = {}
        try:
            self._mount_fd = os.open(hierarchy.mount, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            self._mount_fd = -1
        for path, number in walk(hierarchy.mount):
            self._groups[number] = _Group(_text(path))
        self._index()

    def paths_for(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
        """Path of each id, as index into a list; `#ID` where it cannot be found."""
        at = np.searchsorted(self._ids, ids)
        at[at == len(self._ids)] = 0
        unknown = self._ids[at] != ids if len(self._ids) else np.ones(len(ids), bool)
        if unknown.any():
            for number in np.unique(ids[unknown]).tolist():
                path = self._find(number)
                gone_ns = time.monotonic_ns() if path is None else None
                self._groups[number] = _Group(path or f"#{number}", gone_ns=gone_ns)
            self._index()
            at = np.searchsorted(self._ids, ids)
        return at.astype(np.int32), self._paths

    def path_of(self, number: int) -> str:
        """Path of one id, as `paths_for`."""
        at, paths = self.paths_for(np.array([number], np.int64))
        return paths[int(at[0])]

    def feed(self, events: NDArray[Any]) -> None:
        """Takes structured cgroup events: fields ns, id, kind, path."""
        for ns, number, kind, raw in zip(
            *(events[f].tolist() for f in ("ns", "id", "kind", "path")), strict=True
        ):
            path = raw.decode(errors="replace") or "/"
            if len(raw) == events.dtype["path"].itemsize - 1:
                # There was no room for all of it.
                path = self._find(number) or f"{path}...#{number}"
            if kind == MKDIR:
                self._groups[number] = _Group(path, created_ns=ns)
            elif kind == RMDIR:
                group = self._groups.setdefault(number, _Group(path))
                group.removed_ns = group.gone_ns = ns
                group.changed = True
            else:
                self._renamed(self._groups.setdefault(number, _Group(path)), path)
        self._index()

    def _renamed(self, group: _Group, path: str) -> None:
        """The kernel tells of the one that was renamed, not of those below it."""
        before = group.path
        group.path, group.changed = path, True
        for other in self._groups.values():
            if other.path.startswith(f"{before}/") and other.removed_ns is None:
                other.path, other.changed = path + other.path[len(before) :], True

    def subtree_ids(self, name: str) -> list[int]:
        """Ids of a cgroup and of all below it.

        Of one that was asked for before, wherever it is by now; none where it was removed.

        Args:
            name: Its path below the mount, with or without the mount in front.

        Raises:
            TargetError: There is none, and there was none before.
        """
        inside = self._hierarchy.inside(name)
        root = self._hierarchy.folder(inside)
        # An empty name is a variable that is not set: it must not mean the whole machine.
        if not name or not root.is_dir() or ".." in Path(inside).parts:
            if name not in self._asked:
                raise self._no_such(name, inside)
            path = self._find(self._asked[name])
            return [] if path is None else [n for _, n in walk(self._hierarchy.folder(path))]
        found = [number for _, number in walk(root)]
        if found:
            self._asked[name] = found[0]
        return found

    def _no_such(self, name: str, inside: str) -> TargetError:
        paths = [g.path for g in self._groups.values()]
        near = get_close_matches(f"/{inside}", paths, n=3, cutoff=0.4)
        hint = (
            f"similar: {', '.join(near)}" if near else f"cgroups are below {self._hierarchy.mount}"
        )
        return TargetError(f"there is no cgroup {name!r} in the {self._hierarchy.kind} tree", hint)

    def rows(self, *, final: bool = False) -> list[dict[str, Any]]:
        """Rows of the cgroups table that are new or changed.

        Quotas are read anew of some cgroups at each call, each in its turn; with `final`, of all.
        """
        if final or not self._to_read:
            self._to_read = [n for n, g in self._groups.items() if g.gone_ns is None]
        self._read_limits(len(self._to_read) if final else _READ_AT_ONCE)
        changed = {number: g for number, g in self._groups.items() if g.changed}
        for group in changed.values():
            group.changed = False
            if group.limits == (None, None):
                group.limits = quota_of(self._hierarchy, group.path)
        rows = [self._row(number, group) for number, group in changed.items()]
        self._let_go()
        return rows

    def _read_limits(self, count: int) -> None:
        """A quota may be set long after a cgroup was made, and changed later."""
        due, self._to_read = self._to_read[:count], self._to_read[count:]
        for number in due:
            group = self._groups.get(number)
            if group is None or group.gone_ns is not None:
                continue
            limits = quota_of(self._hierarchy, group.path)
            if limits not in (group.limits, (None, None)):
                group.limits, group.changed = limits, True

    def _row(self, number: int, group: _Group) -> dict[str, Any]:
        identity = identify(group.path)
        return {
            "cgroup_id": number,
            "path": group.path,
            "container_id": identity.container_id,
            "runtime": identity.runtime,
            "pod_uid": identity.pod_uid,
            "unit": identity.unit,
            "created_ns": group.created_ns,
            "removed_ns": group.removed_ns,
            "quota_us": group.limits[0],
            "period_us": group.limits[1],
            "seen_ns": time.monotonic_ns(),
        }

    def _index(self) -> None:
        self._ids = np.array(sorted(self._groups), np.int64)
        self._paths = [self._groups[number].path for number in self._ids.tolist()]

    def _let_go(self) -> None:
        """Forgets the longest gone, once written, when there are too many."""
        excess = len(self._groups) - _MAX_KNOWN
        if excess <= 0:
            return
        old = time.monotonic_ns() - _KEEP_GONE_NS
        gone = sorted(
            (g.gone_ns, number)
            for number, g in self._groups.items()
            if g.gone_ns is not None and g.gone_ns < old
        )
        for _, number in gone[:excess]:
            del self._groups[number]
        self._index()

    def _find(self, number: int) -> str | None:
        """Path of a cgroup that was not there at the start and whose creation was not seen."""
        if number <= 0 or self._mount_fd < 0:
            return None
        handle = _Handle(8, _FILEID_KERNFS, number)
        fd = c.CDLL(None, use_errno=True).open_by_handle_at(
            self._mount_fd, c.byref(handle), os.O_PATH
        )
        if fd < 0:
            return None
        try:
            path = _text(str(Path(f"/proc/self/fd/{fd}").readlink()))
        finally:
            os.close(fd)
        mount = str(self._hierarchy.mount)
        # A removed cgroup has no path any more: its link is just "/".
        return path.removeprefix(mount) or "/" if path.startswith(mount) else None


def _text(path: str) -> str:
    """A path as text: who makes a cgroup names it, in any bytes."""
    return os.fsencode(path).decode(errors="replace")


class _Handle(c.Structure):
    """struct file_handle with a kernfs id as handle."""

    _fields_ = (("bytes", c.c_uint32), ("type", c.c_int32), ("number", c.c_uint64))
