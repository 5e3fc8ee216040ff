"""The tree of cgroups that ids and paths are from: which one, and what its files say."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sltrace.names.proc import process_of

_MAX_WALK = 1 << 16


@dataclass(frozen=True)
class Hierarchy:
    """The cgroup tree that ids and paths are from.

    Attributes:
        kind: `v2`, or `v1 cpu` on hosts whose tasks live in the v1 tree of that controller.
        mount: Where it is mounted.
        hierarchy_id: As in /proc/cgroups; 0 for v2.
        why: Why this one, in a sentence.
        limit: What it cannot tell, likewise; empty where it tells all.
    """

    kind: Literal["v2", "v1 cpu"]
    mount: Path
    hierarchy_id: int
    why: str
    limit: str = ""

    def inside(self, name: str) -> str:
        """A cgroup's path below the mount, which may be in front of it or not."""
        return name.removeprefix(str(self.mount)).strip("/")

    def folder(self, path: str) -> Path:
        """Where a cgroup is, by its path from the tree's root."""
        return self.mount / path.strip("/")


def choose_hierarchy(proc: Path = Path("/proc")) -> Hierarchy:
    """The tree that tells tasks apart: v2, unless all its tasks are at its root."""
    unified, cpu = _mounts(proc)
    v1_id = _v1_cpu_id(proc)
    if unified and not v1_id:
        return Hierarchy("v2", unified, 0, "the cpu controller is on the unified tree")
    if unified and not cpu:
        why = "the v1 tree of the cpu controller cannot be seen here"
        return Hierarchy(
            "v2",
            unified,
            0,
            why,
            f"{why}: cgroups are those of the unified tree, and CPU quotas are not known",
        )
    if cpu and v1_id:
        if unified and _has_groups(unified) and not _has_groups(cpu):
            return Hierarchy("v2", unified, 0, "only the unified tree has tasks below its root")
        return Hierarchy(
            "v1 cpu", cpu, v1_id, "hybrid host: the cpu controller is on its own v1 tree"
        )
    why = "no cgroup tree can be seen here"
    limit = f"{why}: cgroups have an id and no name, and --cgroup finds none"
    return Hierarchy("v2", Path("/sys/fs/cgroup"), 0, why, limit)


def _mounts(proc: Path) -> tuple[Path | None, Path | None]:
    """Mount points of the v2 tree and of the v1 tree with the cpu controller.

    Those that can be seen: what is mounted over one hides it, and leaves it in the list.
    """
    unified = cpu = None
    try:
        lines = (proc / "self/mounts").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _device, mount, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        if not (kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(","))):
            continue
        path = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), mount))
        # What is mounted over it may refuse the very question, as a BPF file system does.
        if not os.access(path / "cgroup.procs", os.F_OK):
            continue
        if kind == "cgroup2":
            unified = unified or path
        else:
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
    folders = (Path(folder) for folder, _, _ in os.walk(mount))
    return any(folder != mount and _members(folder) for folder in folders)


def _members(folder: Path) -> list[int]:
    """Processes of a cgroup; of a threaded one, which names none of them, the threads."""
    for name in ("cgroup.procs", "cgroup.threads"):
        with contextlib.suppress(OSError):
            return [int(number) for number in (folder / name).read_text().split()]
    return []


def processes_below(names: Iterable[str]) -> tuple[int, ...]:
    """Processes in cgroups, by their paths as `subtree_ids` takes them, and below; each once."""
    tree = choose_hierarchy()
    found: dict[int, None] = {}
    for name in names:
        for path, _ in walk(tree.mount / tree.inside(name)):
            members = _members(tree.folder(path))
            found |= dict.fromkeys(process_of(number) for number in members)
    found.pop(0, None)
    return tuple(found)


def walk(root: Path) -> list[tuple[str, int]]:
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


def quota_of(hierarchy: Hierarchy, path: str) -> tuple[int | None, int | None]:
    """CPU quota and period of a cgroup in us; None for no quota or unknown."""
    folder = hierarchy.folder(path)
    try:
        if hierarchy.kind == "v2":
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return (None if quota in ("max", "-1") else int(quota)), int(period)
    except (OSError, ValueError):
        return None, None


def throttled_ns(hierarchy: Hierarchy, path: str) -> int:
    """How long a cgroup's own CPU quota has been used up, on all CPUs together; 0 if unknown."""
    try:
        stat = (hierarchy.folder(path) / "cpu.stat").read_text()
        told = dict(line.split() for line in stat.splitlines())
        if hierarchy.kind == "v2":
            return int(told.get("throttled_usec", 0)) * 1000
        return int(told.get("throttled_time", 0))
    except (OSError, ValueError):
        return 0


def id_of(hierarchy: Hierarchy, path: str) -> int | None:
    """The id of a cgroup; None if there is none there any more."""
    try:
        return hierarchy.folder(path).stat().st_ino
    except OSError:
        return None
