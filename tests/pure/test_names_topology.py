"""Topology from made-up sysfs trees."""

from __future__ import annotations

from pathlib import Path

from sltrace.names.topology import read_topology


def tree(root: Path, online: str, possible: str, nodes: dict[int, str]) -> Path:
    cpu = root / "devices/system/cpu"
    cpu.mkdir(parents=True)
    (cpu / "online").write_text(online + "\n")
    (cpu / "possible").write_text(possible + "\n")
    for node, cpus in nodes.items():
        folder = root / f"devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
    return root


def test_two_nodes_and_256_cpus(tmp_path: Path) -> None:
    found = read_topology(
        tree(tmp_path, "0-255", "0-255", {0: "0-63,128-191", 1: "64-127,192-255"})
    )
    assert len(found.cpus) == 256
    assert found.node_of_cpu[[0, 64, 128, 255]].tolist() == [0, 1, 0, 1]


def test_offline_cpus_and_memory_only_nodes(tmp_path: Path) -> None:
    found = read_topology(tree(tmp_path, "0,2", "0-3", {0: "0-3", 1: ""}))
    assert found.cpus == (0, 2)
    assert found.nodes == {0: (0, 1, 2, 3)}
    assert len(found.node_of_cpu) == 4


def test_no_nodes_is_one_node(tmp_path: Path) -> None:
    assert read_topology(tree(tmp_path, "0-1", "0-1", {})).nodes == {0: (0, 1)}
