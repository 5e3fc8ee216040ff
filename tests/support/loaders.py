"""The two loaders' probes in this process, without a recording."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture import bcc_compiler
from sltrace.capture.bcc import BccProbes
from sltrace.capture.probeconfig import Targets
from sltrace.capture.probes import LibbpfProbes, Probes
from sltrace.capture.settings import Settings
from tests.support.cgroups import Cgroup

HAS_BCC = any((p / "bcc" / "libbcc.py").is_file() for p in bcc_compiler.MODULE_PATHS)
NEEDS_BCC = [
    pytest.mark.bpf,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root"),
    pytest.mark.skipif(not HAS_BCC, reason="python3-bpfcc is not installed"),
]
WAKEUP, PREEMPT, MISSED = 0, 1, 16
"""enum kind in probes/wait_record.h"""


def bcc_probes(settings: Settings | None = None, targets: Targets | None = None) -> BccProbes:
    """Attached by BCC's loader."""
    return BccProbes(settings or Settings(), targets or Targets(start_ns=time.monotonic_ns()))


def libbpf_probes(settings: Settings | None = None, targets: Targets | None = None) -> LibbpfProbes:
    """Attached by libbpf's."""
    return LibbpfProbes(settings or Settings(), targets or Targets(start_ns=time.monotonic_ns()))


def targets_in(group: Cgroup, *wanted: int) -> Targets:
    """cgroup ids of the tree the CPU controller is in."""
    rows = Path("/proc/cgroups").read_text(encoding="ascii").splitlines()[1:]
    trees = {row.split()[0]: int(row.split()[1]) for row in rows}
    return Targets(
        cgroup_ids=lambda: wanted,
        hierarchy_id=trees["cpu"],
        cgroup_v1=group.hierarchy.version == 1,
        start_ns=time.monotonic_ns(),
    )


def records_of(probes: Probes) -> NDArray[Any]:
    """All that is in the rings; at least one record must be."""
    parts = [r for ring in probes.wait_rings if (r := ring.drain()) is not None]
    found: NDArray[Any] = np.concatenate(parts)
    return found


def counted(probes: Probes) -> dict[str, int]:
    """Counters, summed over CPUs."""
    return dict(zip(probes.counter_names, map(int, probes.counters().sum(axis=0)), strict=True))


def unseen(probes: Probes) -> int:
    """Waits that are lost or not seen whole, so far."""
    c = counted(probes)
    return sum(c[n] for n in ("ring_full", "state_lost", "holes", "unstamped", "clock_backwards"))
