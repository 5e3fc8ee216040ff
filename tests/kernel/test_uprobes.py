"""Probes in user code, by either of the kernel's two ways."""

from __future__ import annotations

import os

import pytest

from sltrace.capture import libbpf, tags, uprobes
from sltrace.capture.golang.probes import _RECORD, TRACE_KEYS, GoProbes
from sltrace.capture.overhead import STATS_RUN_TIME, run_statistics

pytestmark = pytest.mark.bpf

_HITS = 5000
"""Of the loop that measures what one costs, its warming up included; by the kernel's own count."""


@pytest.mark.parametrize("multi", [True, False], ids=["uprobe_multi", "perf"])
def test_every_hit_is_counted(monkeypatch: pytest.MonkeyPatch, multi: bool) -> None:
    if multi and not uprobes.attach_type():
        pytest.skip("no uprobe_multi before Linux 6.10")
    monkeypatch.setattr(uprobes, "_multi", lambda: multi)
    tags_fd = tags.create_map()
    statistics = libbpf.library().bpf_enable_stats(STATS_RUN_TIME)
    try:
        probes = GoProbes(tags_fd, level=1, cgroup_v1=False, trace_keys=TRACE_KEYS, measured=False)
        try:
            _, counted, _ = run_statistics(probes._object.programs[_RECORD].fd)
            cost = probes.runs.hit_ns
        finally:
            probes.close()
    finally:
        os.close(tags_fd)
        os.close(statistics)
    assert counted == _HITS
    assert cost > 0
