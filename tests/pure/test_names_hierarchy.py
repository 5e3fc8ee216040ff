"""Which tree of cgroups is taken, on hosts of every kind, and what its files say of a quota."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sltrace.capture import checkup, kernel
from sltrace.capture.description import describe
from sltrace.capture.settings import Settings
from sltrace.names import hierarchy as names
from sltrace.names.hierarchy import Hierarchy, choose_hierarchy, quota_of
from sltrace.names.topology import read_topology

CPU_IS_V1 = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\ncpu\t5\t9\t1\n"
CPU_IS_V2 = CPU_IS_V1.replace("cpu\t5", "cpu\t0")


def hierarchy(
    host: Path,
    *,
    cpu: str,
    groups: tuple[str, ...],
    mounted: tuple[str, ...],
    hidden: tuple[str, ...] = (),
) -> Hierarchy:
    """The tree on a host with processes in these groups."""
    proc, unified, v1 = host / "proc", host / "unified tree", host / "cpu,cpuacct"
    escaped = str(unified).replace(" ", "\\040")
    mounts = {
        "v2": f"cgroup2 {escaped} cgroup2 rw,nosuid 0 0",
        "cpu": f"cgroup {v1} cgroup rw,cpu,cpuacct 0 0",
        "other": f"cgroup {host}/cpuset cgroup rw,cpuset 0 0",
    }
    (proc / "self").mkdir(parents=True)
    (proc / "self/mounts").write_text("\n".join(mounts[name] for name in mounted) + "\n")
    (proc / "cgroups").write_text(cpu)
    for name, root in (("v2", unified), ("cpu", v1)):
        root.mkdir(exist_ok=True)
        if name in mounted and name not in hidden:
            (root / "cgroup.procs").write_text("1\n")
    for group in groups:
        (host / group).mkdir(parents=True, exist_ok=True)
        (host / group / "cgroup.procs").write_text("1\n")
    return choose_hierarchy(proc)


def chosen(host: Path, **of_host: Any) -> tuple[str, str, int]:
    """Its kind, mount point and id."""
    found = hierarchy(host, **of_host)
    return found.kind, found.mount.name, found.hierarchy_id


BELOW_V2, BELOW_V1 = "unified tree/system.slice", "cpu,cpuacct/system.slice"


@pytest.mark.parametrize(
    ("cpu", "groups", "mounted", "tree"),
    [
        (CPU_IS_V2, (BELOW_V2,), ("v2",), ("v2", "unified tree", 0)),
        (CPU_IS_V1, (BELOW_V1,), ("other", "cpu"), ("v1 cpu", "cpu,cpuacct", 5)),
        (CPU_IS_V1, (BELOW_V1, BELOW_V2), ("other", "v2", "cpu"), ("v1 cpu", "cpu,cpuacct", 5)),
        # The v1 tree is there, and nobody is in a group of it.
        (CPU_IS_V1, (BELOW_V2, "cpu,cpuacct"), ("cpu", "v2"), ("v2", "unified tree", 0)),
        (CPU_IS_V1, ("cpu,cpuacct",), ("cpu", "v2"), ("v1 cpu", "cpu,cpuacct", 5)),
        (CPU_IS_V2, (), (), ("v2", "cgroup", 0)),
    ],
)
def test_the_tree_is_the_one_that_tells_tasks_apart(
    tmp_path: Path,
    cpu: str,
    groups: tuple[str, ...],
    mounted: tuple[str, ...],
    tree: tuple[str, str, int],
) -> None:
    assert chosen(tmp_path, cpu=cpu, groups=groups, mounted=mounted) == tree


def test_a_tree_whose_groups_are_threaded_tells_tasks_apart(tmp_path: Path) -> None:
    group = tmp_path / BELOW_V2
    # Reading it fails, as it does in a threaded cgroup.
    (group / "cgroup.procs").mkdir(parents=True)
    (group / "cgroup.threads").write_text("12\n")
    tree = chosen(tmp_path, cpu=CPU_IS_V1, groups=(), mounted=("cpu", "v2"))
    assert tree == ("v2", "unified tree", 0)


def test_a_host_without_proc_has_no_tree(tmp_path: Path) -> None:
    assert choose_hierarchy(tmp_path).limit.startswith("no cgroup tree can be seen here: ")


@pytest.mark.parametrize(
    ("cpu", "hidden", "limit"),
    [
        (
            CPU_IS_V1,
            ("cpu",),
            "the v1 tree of the cpu controller cannot be seen here: cgroups are ",
        ),
        # As by a tmpfs over all of them.
        (CPU_IS_V1, ("v2", "cpu"), "no cgroup tree can be seen here: cgroups have an id and no "),
        (CPU_IS_V2, ("v2",), "no cgroup tree can be seen here: "),
        (CPU_IS_V2, ("cpu",), ""),
        (CPU_IS_V1, ("v2",), ""),
    ],
)
def test_what_cannot_be_seen_is_said_by_doctor_and_by_every_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: str, hidden: tuple[str, ...], limit: str
) -> None:
    found = hierarchy(tmp_path, cpu=cpu, groups=(BELOW_V2,), mounted=("v2", "cpu"), hidden=hidden)
    assert found.limit.startswith(limit)
    assert bool(found.limit) == bool(limit)
    if limit:
        assert (found.kind, found.hierarchy_id) == ("v2", 0)
        assert "on the unified tree" not in found.why
    monkeypatch.setattr(names, "choose_hierarchy", lambda: found)
    (said,) = checkup._cgroups()
    assert said.text == ((limit and found.limit) or said.text)
    assert said.state == ("limited" if limit else "ok")
    monkeypatch.setattr(kernel, "limits", lambda: ["of the kernel"])
    described = describe(
        Settings(), found, read_topology(), loader="libbpf", command_line=(), clock={}
    )
    assert described["limits"] == ["of the kernel", *([found.limit] if limit else [])]


@pytest.mark.parametrize(
    ("kind", "files", "quota"),
    [
        ("v2", {"cpu.max": "20000 100000\n"}, (20_000, 100_000)),
        ("v2", {"cpu.max": "max 100000\n"}, (None, 100_000)),
        ("v2", {}, (None, None)),
        ("v1 cpu", {"cpu.cfs_quota_us": "5000\n", "cpu.cfs_period_us": "50000\n"}, (5000, 50_000)),
        ("v1 cpu", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, (None, 100_000)),
        ("v1 cpu", {"cpu.cfs_quota_us": "5000\n"}, (None, None)),
    ],
)
def test_a_quota_is_what_its_files_say(
    tmp_path: Path, kind: str, files: dict[str, str], quota: tuple[int | None, int | None]
) -> None:
    (tmp_path / "web").mkdir()
    for name, text in files.items():
        (tmp_path / "web" / name).write_text(text)
    assert quota_of(Hierarchy(kind, tmp_path, 0, ""), "/web") == quota  # type: ignore[arg-type]
