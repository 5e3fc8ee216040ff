"""cgroups that are always removed again, on v2 and on v1's cpu hierarchy alike."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class CgroupError(Exception):
    """This machine or user cannot make the cgroup that was asked for."""


@dataclass(frozen=True)
class Hierarchy:
    """The cgroup tree that the CPU controller is in: `version` 1 or 2, mounted at `mount`."""

    version: int
    mount: Path


@dataclass(frozen=True)
class CpuStat:
    """`cpu.stat` in one unit: throttled time is summed over the cgroup's CPUs (ns)."""

    periods: int
    throttled: int
    throttled_ns: int


def cpu_hierarchy() -> Hierarchy:
    """Where CPU quotas are set here: v2 if its controller is there, else v1's `cpu` mount.

    Raises:
        CgroupError: Neither is mounted.
    """
    v1 = None
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        mount = Path(before.split(" ")[4])
        if kind == "cgroup2":
            controllers = (mount / "cgroup.controllers").read_text(encoding="ascii").split()
            if "cpu" in controllers:
                return Hierarchy(2, mount)
        elif kind == "cgroup" and "cpu" in options.split(","):
            v1 = v1 or Hierarchy(1, mount)
    if v1 is None:
        raise CgroupError("no cgroup hierarchy with a CPU controller is mounted")
    return v1


@dataclass(frozen=True)
class Cgroup:
    """A cgroup made by `cgroup`, or one below it."""

    hierarchy: Hierarchy
    path: Path

    @property
    def procs(self) -> Path:
        """File a process is written to to join."""
        return self.path / "cgroup.procs"

    @property
    def name(self) -> str:
        """Path from the hierarchy's root, as in /proc/PID/cgroup."""
        return "/" + str(self.path.relative_to(self.hierarchy.mount))

    @property
    def id(self) -> int:
        """Its kernfs id, which is the inode of its folder (Linux 5.5 on, 64 bit)."""
        return self.path.stat().st_ino

    def child(self, name: str) -> Cgroup:
        """Makes a cgroup below this one; removed together with the outermost."""
        if self.hierarchy.version == 2:
            _enable_cpu(self.path)
        return _make(self.hierarchy, self.path / name)

    def limit(self, cpus: float, period_us: int = 100_000) -> None:
        """Sets the quota: `cpus` CPUs' worth of time in each period."""
        quota = round(cpus * period_us)
        if self.hierarchy.version == 2:
            _write(self.path / "cpu.max", f"{quota} {period_us}")
        else:
            _write(self.path / "cpu.cfs_period_us", str(period_us))
            _write(self.path / "cpu.cfs_quota_us", str(quota))

    def weigh(self, times: float) -> None:
        """Sets the weight against its siblings, as a multiple of the default."""
        if self.hierarchy.version == 2:
            _write(self.path / "cpu.weight", str(max(1, round(100 * times))))
        else:
            _write(self.path / "cpu.shares", str(max(2, round(1024 * times))))

    def allow_real_time(self, runtime_us: int) -> bool:
        """Lets real-time threads in, `runtime_us` of each second, where groups account for them.

        Returns:
            False if the kernel refuses (another group holds the time). True also where no grant
            is needed: v2, or a kernel without CONFIG_RT_GROUP_SCHED.
        """
        file = self.path / "cpu.rt_runtime_us"
        if not file.exists():
            return True
        try:
            _write(file, str(runtime_us))
        except CgroupError:
            return False
        return True

    def cpu_stat(self) -> CpuStat:
        """What the kernel says about the quota so far."""
        text = (self.path / "cpu.stat").read_text(encoding="ascii")
        stat = {key: int(value) for key, value in (line.split() for line in text.splitlines())}
        if self.hierarchy.version == 2:
            throttled_ns = stat.get("throttled_usec", 0) * 1000
        else:
            throttled_ns = stat.get("throttled_time", 0)
        return CpuStat(stat.get("nr_periods", 0), stat.get("nr_throttled", 0), throttled_ns)


@contextmanager
def cgroup(name: str, *, cpus: float | None = None, period_us: int = 100_000) -> Iterator[Cgroup]:
    """A new cgroup at the top of the CPU controller's tree; gone at the end, whatever happens.

    Processes still in it, or in one below it, are killed then: they were started for it.

    Args:
        name: Name of the folder; the process id is added, so that runs do not meet.
        cpus: Quota in CPUs; none by default.
        period_us: Of the quota.

    Raises:
        CgroupError: Not root, or no CPU controller.
    """
    hierarchy = cpu_hierarchy()
    if hierarchy.version == 2:
        _enable_cpu(hierarchy.mount)
    made = _make(hierarchy, hierarchy.mount / f"{name}-{os.getpid()}")
    try:
        if cpus is not None:
            made.limit(cpus, period_us)
        yield made
    finally:
        remove(made.path)


def _make(hierarchy: Hierarchy, path: Path) -> Cgroup:
    try:
        path.mkdir()
    except OSError as err:
        raise CgroupError(f"cannot make {path}: {err.strerror}; run as root") from err
    return Cgroup(hierarchy, path)


def _enable_cpu(path: Path) -> None:
    if "cpu" not in (path / "cgroup.subtree_control").read_text(encoding="ascii").split():
        _write(path / "cgroup.subtree_control", "+cpu")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="ascii")
    except OSError as err:
        raise CgroupError(f"cannot write {text!r} to {file}: {err.strerror}") from err


def remove(top: Path) -> None:
    """Removes a tree of cgroups, innermost first; a task that ended may take a moment to leave."""
    deadline = time.monotonic() + 5
    while True:
        for folder, _, _ in os.walk(top, topdown=False):
            _kill_members(Path(folder))
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if not top.exists():
            return
        if time.monotonic() > deadline:
            raise CgroupError(f"cannot remove {top}")
        time.sleep(0.01)


def _kill_members(path: Path) -> None:
    try:
        pids = [int(p) for p in (path / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return
    for pid in pids:
        # 0 is a process of an outer pid namespace; kill(0) would be our own group.
        if pid not in (0, os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
