"""Topology from made-up sysfs trees."""

from __future__ import annotations

from pathlib import Path

from sltrace.names.topology import read_topology


def tree(
    root: Path,
    online: str,
    possible: str,
    nodes: dict[int, str],
    offline: dict[int, tuple[int, ...]] | None = None,
) -> Path:
    """A sysfs in which nodes list online CPUs; `offline` are the others of each node."""
    cpu = root / "devices/system/cpu"
    cpu.mkdir(parents=True)
    (cpu / "online").write_text(online + "\n")
    (cpu / "possible").write_text(possible + "\n")
    for node, cpus in nodes.items():
        folder = root / f"devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
        for number in (offline or {}).get(node, ()):
            (cpu / f"cpu{number}").mkdir()
            (cpu / f"cpu{number}" / f"node{node}").symlink_to(folder)
    return root


def test_two_nodes_and_256_cpus(tmp_path: Path) -> None:
    found = read_topology(
        tree(tmp_path, "0-255", "0-255", {0: "0-63,128-191", 1: "64-127,192-255"})
    )
    assert len(found.cpus) == 256
    assert found.node_of_cpu[[0, 64, 128, 255]].tolist() == [0, 1, 0, 1]


def test_offline_cpus_and_memory_only_nodes(tmp_path: Path) -> None:
    """CPUs that are offline at the start may come; of 5, which is possible only, nobody knows."""
    offline = {0: (1,), 2: (3, 4)}
    found = read_topology(tree(tmp_path, "0,2", "0-5", {0: "0", 1: "", 2: "2"}, offline))
    assert found.cpus == (0, 2)
    assert found.nodes == {0: (0,), 2: (2,)}
    assert found.node_of_cpu.tolist() == [0, 0, 2, 2, 2, 0]


def test_no_nodes_is_one_node(tmp_path: Path) -> None:
    assert read_topology(tree(tmp_path, "0-1", "0-1", {})).nodes == {0: (0, 1)}
