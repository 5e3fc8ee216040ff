"""cgroup ids and paths, also of cgroups that are gone.

An id is the kernfs inode of the cgroup's directory, so it can be read with stat(2), and opened
by a file handle of type FILEID_KERNFS (include/linux/exportfs.h) that is the id itself.
"""

from __future__ import annotations

import ctypes as c
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sltrace.errors import TargetError
from sltrace.names.containers import identify

MKDIR, RMDIR, RENAME = 1, 2, 3
"""enum cgroup_event_kind in probes/wait_record.h"""

_FILEID_KERNFS = 0xFE
_MAX_KNOWN = 1 << 16
_MAX_WALK = 1 << 16
_READ_AT_ONCE = 64
"""Cgroups whose quotas are read anew each time rows are asked for, once a second: 1 ms."""


@dataclass(frozen=True)
class Hierarchy:
    """The cgroup tree that ids and paths are from.

    Attributes:
        kind: `v2`, or `v1 cpu` on hosts whose tasks live in the v1 tree of that controller.
        mount: Where it is mounted.
        hierarchy_id: As in /proc/cgroups; 0 for v2.
        why: Why this one, in a sentence.
    """

    kind: Literal["v2", "v1 cpu"]
    mount: Path
    hierarchy_id: int
    why: str


def choose_hierarchy(proc: Path = Path("/proc")) -> Hierarchy:
    """The tree that tells tasks apart: v2, unless all its tasks are at its root."""
    unified, cpu = _mounts(proc)
    v1_id = _v1_cpu_id(proc)
    if unified and not (cpu and v1_id):
        return Hierarchy("v2", unified, 0, "the cpu controller is on the unified tree")
    if cpu and v1_id:
        if unified and _has_groups(unified) and not _has_groups(cpu):
            return Hierarchy("v2", unified, 0, "only the unified tree has tasks below its root")
        return Hierarchy(
            "v1 cpu", cpu, v1_id, "hybrid host: the cpu controller is on its own v1 tree"
        )
    return Hierarchy("v2", Path("/sys/fs/cgroup"), 0, "no cgroup tree is mounted: ids only")


def _mounts(proc: Path) -> tuple[Path | None, Path | None]:
    """Mount points of the v2 tree and of the v1 tree with the cpu controller."""
    unified = cpu = None
    try:
        lines = (proc / "self/mounts").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _device, mount, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        path = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), mount))
        if kind == "cgroup2":
            unified = unified or path
        elif kind == "cgroup" and "cpu" in options.split(","):
            cpu = cpu or path
    return unified, cpu


def _v1_cpu_id(proc: Path) -> int:
    try:
        for line in (proc / "cgroups").read_text().splitlines():
            name, hierarchy, *_ = line.split()
            if name == "cpu":
                return int(hierarchy)
    except (OSError, ValueError):
        pass
    return 0


def _has_groups(mount: Path) -> bool:
    """Whether any cgroup below the root has a process."""
    for folder, _, files in os.walk(mount):
        if folder != str(mount) and "cgroup.procs" in files:
            try:
                if (Path(folder) / "cgroup.procs").read_bytes():
                    return True
            except OSError:
                continue
    return False


@dataclass
class _Group:
    path: str
    created_ns: int | None = None
    removed_ns: int | None = None
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
        for path, number in _walk(hierarchy.mount):
            self._add(number, _text(path))
        self._index()

    def paths_for(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
        """Path of each id, as index into a list; `#ID` where it cannot be found."""
        at = np.searchsorted(self._ids, ids)
        at[at == len(self._ids)] = 0
        unknown = self._ids[at] != ids if len(self._ids) else np.ones(len(ids), bool)
        if unknown.any():
            for number in np.unique(ids[unknown]).tolist():
                self._add(number, self._find(number) or f"#{number}")
            self._index()
            at = np.searchsorted(self._ids, ids)
        return at.astype(np.int32), self._paths

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
                group.removed_ns, group.changed = ns, True
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
        mount = self._hierarchy.mount
        inside = name.removeprefix(str(mount)).strip("/")
        root = mount / inside
        # An empty name is a variable that is not set: it must not mean the whole machine.
        if not name or not root.is_dir() or ".." in Path(inside).parts:
            if name not in self._asked:
                raise self._no_such(name, inside)
            path = self._find(self._asked[name])
            return [] if path is None else [n for _, n in _walk(mount / path.strip("/"))]
        found = [number for _, number in _walk(root)]
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
            self._to_read = [n for n, g in self._groups.items() if g.removed_ns is None]
        self._read_limits(len(self._to_read) if final else _READ_AT_ONCE)
        changed = {number: g for number, g in self._groups.items() if g.changed}
        for group in changed.values():
            group.changed = False
            if group.limits == (None, None):
                group.limits = _quota(self._hierarchy, group.path)
        rows = [self._row(number, group) for number, group in changed.items()]
        self._let_go()
        return rows

    def _read_limits(self, count: int) -> None:
        """A quota may be set long after a cgroup was made, and changed later."""
        due, self._to_read = self._to_read[:count], self._to_read[count:]
        for number in due:
            group = self._groups.get(number)
            if group is None or group.removed_ns is not None:
                continue
            limits = _quota(self._hierarchy, group.path)
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

    def _add(self, number: int, path: str) -> None:
        self._groups.setdefault(number, _Group(path))

    def _index(self) -> None:
        self._ids = np.array(sorted(self._groups), np.int64)
        self._paths = [self._groups[number].path for number in self._ids.tolist()]

    def _let_go(self) -> None:
        """Forgets the longest removed, once written, when there are too many."""
        excess = len(self._groups) - _MAX_KNOWN
        if excess <= 0:
            return
        removed = sorted(
            (g.removed_ns, number) for number, g in self._groups.items() if g.removed_ns
        )
        for _, number in removed[:excess]:
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


def processes_below(names: Iterable[str]) -> tuple[int, ...]:
    """Processes in cgroups, by their paths as `subtree_ids` takes them, and below; each once."""
    mount = choose_hierarchy().mount
    found: dict[int, None] = {}
    for name in names:
        inside = name.removeprefix(str(mount)).strip("/")
        for path, _ in _walk(mount / inside):
            try:
                text = (mount / path.strip("/") / "cgroup.procs").read_text()
            except OSError:
                continue
            found |= dict.fromkeys(map(int, text.split()))
    return tuple(found)


class _Handle(c.Structure):
    """struct file_handle with a kernfs id as handle."""

    _fields_ = (("bytes", c.c_uint32), ("type", c.c_int32), ("number", c.c_uint64))


def _walk(root: Path) -> list[tuple[str, int]]:
    """Path from the tree's root and id of a directory and all below it; at most _MAX_WALK."""
    found: list[tuple[str, int]] = []
    top = _top_of(root)
    for folder, names, _ in os.walk(root):
        names.sort()
        try:
            number = Path(folder).stat().st_ino
        except OSError:
            continue
        inside = folder.removeprefix(str(top))
        found.append((inside or "/", number))
        if len(found) >= _MAX_WALK:
            break
    return found


def _top_of(folder: Path) -> Path:
    """The mount point a folder is under."""
    while not folder.is_mount() and folder != folder.parent:
        folder = folder.parent
    return folder


def _quota(hierarchy: Hierarchy, path: str) -> tuple[int | None, int | None]:
    """CPU quota and period of a cgroup in us; None for no quota or unknown."""
    folder = hierarchy.mount / path.strip("/")
    try:
        if hierarchy.kind == "v2":
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return (None if quota in ("max", "-1") else int(quota)), int(period)
    except (OSError, ValueError):
        return None, None
