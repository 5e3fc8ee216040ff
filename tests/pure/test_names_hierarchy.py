"""Which tree of cgroups is taken, on hosts of every kind, and what its files say of a quota."""

from __future__ import annotations

from pathlib import Path

import pytest

from sltrace.names.hierarchy import Hierarchy, choose_hierarchy, quota_of

CPU_IS_V1 = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\ncpu\t5\t9\t1\n"
CPU_IS_V2 = CPU_IS_V1.replace("cpu\t5", "cpu\t0")


def chosen(
    host: Path, *, cpu: str, groups: tuple[str, ...], mounted: tuple[str, ...]
) -> tuple[str, str, int]:
    """Kind, mount point and id of the tree on a host with processes in these groups."""
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
    for group in groups:
        (host / group).mkdir(parents=True)
        (host / group / "cgroup.procs").write_text("1\n")
    found = choose_hierarchy(proc)
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
    assert choose_hierarchy(tmp_path).why == "no cgroup tree is mounted: ids only"


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
