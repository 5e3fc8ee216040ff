"""CPUs and NUMA nodes, from sysfs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MAX_CPUS = 1 << 14


@dataclass(frozen=True)
class Topology:
    """The machine's CPUs.

    Attributes:
        cpus: Online CPUs.
        nodes: Online CPUs of each NUMA node; one node, 0, where the kernel has none.
        node_of_cpu: Node by CPU number, also for CPUs that are offline.
    """

    cpus: tuple[int, ...]
    nodes: dict[int, tuple[int, ...]]
    node_of_cpu: NDArray[np.uint16]


def read_topology(sysfs: Path = Path("/sys")) -> Topology:
    """Reads the topology below `sysfs`."""
    base = sysfs / "devices/system"
    cpus = _cpu_list(base / "cpu/online") or (0,)
    possible = _cpu_list(base / "cpu/possible") or cpus
    nodes = {
        int(folder.name[4:]): _cpu_list(folder / "cpulist")
        for folder in sorted((base / "node").glob("node[0-9]*"))
    }
    nodes = {node: members for node, members in nodes.items() if members} or {0: cpus}
    node_of_cpu = np.zeros(max(*cpus, *possible) + 1, np.uint16)
    for node, members in nodes.items():
        node_of_cpu[[m for m in members if m < len(node_of_cpu)]] = node
    # A node lists online CPUs only; those that are offline now still have their links to it.
    for cpu in set(possible) - set(cpus):
        for link in (base / f"cpu/cpu{cpu}").glob("node[0-9]*"):
            node_of_cpu[cpu] = int(link.name[4:])
    return Topology(cpus, nodes, node_of_cpu)


def _cpu_list(path: Path) -> tuple[int, ...]:
    """CPUs of a list as `0-3,8`; empty where there is none."""
    try:
        text = path.read_text().strip()
    except OSError:
        return ()
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), min(int(last or first), _MAX_CPUS) + 1))
    return tuple(sorted(found))
