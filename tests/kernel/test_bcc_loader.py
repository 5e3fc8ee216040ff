"""The BCC loader against the libbpf loader, and both against the textbook's runqlat."""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture import bcc, bcc_compiler, libbpf, maps
from sltrace.capture.bcc import BccProbes
from sltrace.capture.kernel_offsets import kernel_offsets
from sltrace.capture.probes import LibbpfProbes, Probes, Targets
from sltrace.capture.settings import Filters, Settings, Stacks
from sltrace.errors import CannotRecord, TargetError
from tests.support.cgroups import Cgroup, cgroup
from tests.support.loads import allowed_cpus, load

_HAS_BCC = any((p / "bcc" / "libbcc.py").is_file() for p in bcc_compiler.MODULE_PATHS)

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root"),
    pytest.mark.skipif(not _HAS_BCC, reason="python3-bpfcc is not installed"),
]

_WAKEUP, _PREEMPT, _MISSED = 0, 1, 16
_MS = 1_000_000
_SECOND = 1_000_000_000


def bcc_probes(settings: Settings | None = None, targets: Targets | None = None) -> BccProbes:
    return BccProbes(settings or Settings(), targets or Targets(start_ns=time.monotonic_ns()))


def libbpf_probes(settings: Settings | None = None, targets: Targets | None = None) -> LibbpfProbes:
    return LibbpfProbes(settings or Settings(), targets or Targets(start_ns=time.monotonic_ns()))


def targets_in(group: Cgroup, *wanted: int) -> Targets:
    """cgroup ids of the tree the CPU controller is in."""
    rows = Path("/proc/cgroups").read_text(encoding="ascii").splitlines()[1:]
    trees = {row.split()[0]: int(row.split()[1]) for row in rows}
    return Targets(
        cgroup_ids=wanted,
        hierarchy_id=trees["cpu"],
        cgroup_v1=group.hierarchy.version == 1,
        start_ns=time.monotonic_ns(),
    )


def records_of(probes: Probes) -> NDArray[Any]:
    parts = [r for ring in probes.wait_rings if (r := ring.drain()) is not None]
    found: NDArray[Any] = np.concatenate(parts)
    return found


def counted(probes: Probes) -> dict[str, int]:
    return dict(zip(probes.counter_names, map(int, probes.counters().sum(axis=0)), strict=True))


@dataclass
class Witness:
    """The textbook's runqlat for one process, in a window of time."""

    window: int
    buckets: int

    def watch(self, pid: int, start_ns: int, end_ns: int) -> None:
        libbpf.update_map(self.window, bytes(4), struct.pack("<QQQ", start_ns, end_ns, pid))

    def counts(self) -> NDArray[np.int64]:
        value = ctypes.c_uint64()
        found = np.zeros(64, np.int64)
        for bucket in range(64):
            key = ctypes.c_uint32(bucket)
            assert not libbpf.library().bpf_map_lookup_elem(
                self.buckets, ctypes.byref(key), ctypes.byref(value)
            )
            found[bucket] = value.value
        return found


@contextmanager
def runqlat() -> Iterator[Witness]:
    fds = {
        "FD_START": maps.create_map("start", maps.HASH, 4, 8, 16384),
        "FD_WINDOW": maps.create_map("window", maps.ARRAY, 4, 24, 1),
        "FD_BUCKETS": maps.create_map("buckets", maps.ARRAY, 4, 8, 64),
    }
    defines = fds | {f"OFFSET_{k}": v for k, v in (kernel_offsets() or {}).items()}
    source = Path(__file__).with_name("runqlat.bcc.c")
    cflags = [f"-D{name}={value}" for name, value in defines.items()]
    names = ("sched_wakeup", "sched_wakeup_new", "sched_switch")
    programs, failed = bcc_compiler.compile_programs(source, cflags, names, tuple(fds.values()))
    assert not failed
    open_fds = [*fds.values(), *programs.values()]
    try:
        open_fds += [maps.open_raw_tracepoint(name, programs[name]) for name in names]
        yield Witness(fds["FD_WINDOW"], fds["FD_BUCKETS"])
    finally:
        for fd in open_fds:
            os.close(fd)


@dataclass(frozen=True)
class Both:
    """One load, recorded by both loaders and the witness over the same window."""

    pid: int
    bcc: NDArray[Any]
    libbpf: NDArray[Any]
    missed: dict[str, int]
    runqlat: NDArray[np.int64]

    def waits(self, records: NDArray[Any]) -> NDArray[Any]:
        chosen: NDArray[Any] = records[(records["pid"] == self.pid) & (records["kind"] < _MISSED)]
        return chosen


def _unseen(probes: Probes) -> int:
    c = counted(probes)
    return sum(c[n] for n in ("ring_full", "state_lost", "holes", "unstamped", "clock_backwards"))


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    arguments = ("--duration", 3, "--hogs", 2, "--sleepers", 12, "--groups", 1, "--group-size", 2)
    # The load comes last: it would starve the compiler.
    with (
        runqlat() as witness,
        closing(bcc_probes()) as ours,
        closing(libbpf_probes()) as theirs,
        load("contend", *arguments) as running,
    ):
        start = time.monotonic_ns() + 300 * _MS
        end = start + 2 * _SECOND
        witness.watch(running.pid, start, end)
        parts: dict[str, list[NDArray[Any]]] = {"bcc": [], "libbpf": []}
        over = False
        while not over:
            time.sleep(0.1)
            # Before draining: the load may keep this thread off the CPU in between.
            over = time.monotonic_ns() >= end + 50 * _MS
            parts["bcc"].append(records_of(ours))
            parts["libbpf"].append(records_of(theirs))
        in_window = {
            name: (a := np.concatenate(p))[(a["end_ns"] >= start) & (a["end_ns"] < end)]
            for name, p in parts.items()
        }
        missed = {"bcc": _unseen(ours), "libbpf": _unseen(theirs)}
        yield Both(running.pid, in_window["bcc"], in_window["libbpf"], missed, witness.counts())


def test_attaches_everything_but_the_iterator_without_kernel_headers() -> None:
    with closing(bcc_probes()) as probes:
        assert [name for name, _why in probes.not_attached] == ["tasks_at_start"]
        assert "sched_switch" in probes.attached
        assert len(probes.program_fds()) == len(probes.attached) == 18
        # The compiler stayed in its own process.
        assert "libbcc" not in Path("/proc/self/maps").read_text(encoding="utf-8")
        assert not any(name == "bcc" or name.startswith("bcc.") for name in sys.modules)


def test_same_number_of_waits_for_each_thread(both: Both) -> None:
    counts = {}
    for name, records in (("bcc", both.bcc), ("libbpf", both.libbpf)):
        tids, number = np.unique(both.waits(records)["tid"], return_counts=True)
        counts[name] = dict(zip(tids.tolist(), number.tolist(), strict=True))
    assert len(counts["libbpf"]) >= 16
    assert counts["bcc"].keys() == counts["libbpf"].keys()
    off = {tid: counts["bcc"][tid] - n for tid, n in counts["libbpf"].items()}
    # A wait at an edge of the window may fall on either side for each of them.
    unexplained = sum(abs(d) for d in off.values()) - sum(both.missed.values())
    assert unexplained <= len(off), off
    assert sum(counts["libbpf"].values()) > 5000


def _matched(both: Both) -> tuple[NDArray[Any], NDArray[Any]]:
    """Records of the same switch-in: same thread, ends within a millisecond, one for one."""
    left, right = both.waits(both.bcc), both.waits(both.libbpf)
    pairs = []
    for tid in np.unique(right["tid"]):
        a = np.sort(left[left["tid"] == tid], order="end_ns")
        b = np.sort(right[right["tid"] == tid], order="end_ns")
        at = np.searchsorted(b["end_ns"], a["end_ns"])
        # The programs run one after the other in the same event: nearest is the same.
        before, after = np.clip(at - 1, 0, len(b) - 1), np.clip(at, 0, len(b) - 1)
        distance = [
            np.abs(b["end_ns"][i].astype(np.int64) - a["end_ns"].astype(np.int64))
            for i in (before, after)
        ]
        nearest = np.where(distance[0] < distance[1], before, after)
        close = np.minimum(*distance) < _MS
        _, once = np.unique(nearest[close], return_index=True)
        pairs.append((a[close][once], b[nearest[close][once]]))
    return tuple(np.concatenate(side) for side in zip(*pairs, strict=True))  # type: ignore[return-value]


def test_each_wait_means_the_same(both: Both) -> None:
    ours, theirs = _matched(both)
    assert len(theirs) > 0.99 * len(both.waits(both.libbpf))

    def agree(name: str) -> float:
        return float((ours[name] == theirs[name]).mean())

    for name in ("pid", "cpu", "prev_cpu", "kind", "policy", "prio", "nice", "state", "cgroup"):
        assert agree(name) > 0.99, name
    woken = ours["kind"] == _WAKEUP
    assert (ours["waker_tid"] == theirs["waker_tid"])[woken].mean() > 0.99
    assert (ours["waker_context"] == theirs["waker_context"])[woken].mean() > 0.99
    known = (ours["culprit_known"] == 1) & (theirs["culprit_known"] == 1)
    assert known.mean() > 0.9
    assert (ours["culprit_tid"] == theirs["culprit_tid"])[known].mean() > 0.97
    assert len(np.unique(ours["culprit_tid"])) > 5
    for name in ("runq_ns", "blocked_ns"):
        difference = ours[name].astype(np.int64) - theirs[name].astype(np.int64)
        assert np.median(np.abs(difference)) < 20_000, name
        total = float(theirs[name].sum())
        assert abs(float(difference.sum())) < 0.02 * total, name


def _log2(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    log = np.floor(np.log2(np.maximum(values, 1).astype(np.float64))).astype(np.int64)
    return np.bincount(log, minlength=64)[:64]


def _distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Kolmogorov-Smirnov: the largest difference between the cumulative shares."""
    shares = [np.cumsum(x) / x.sum() for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def test_distributions_agree_with_each_other_and_with_runqlat(both: Both) -> None:
    ours, theirs = (_log2(both.waits(r)["runq_ns"]) for r in (both.bcc, both.libbpf))
    assert both.runqlat.sum() > 5000
    # A microsecond or two between the programs moves short waits over a power of two.
    assert _distance(ours, theirs) < 0.08
    assert _distance(ours, both.runqlat) < 0.08
    assert _distance(theirs, both.runqlat) < 0.08
    slack = 0.01 * both.runqlat.sum() + sum(both.missed.values())
    assert abs(int(ours.sum() - both.runqlat.sum())) < slack
    assert abs(int(theirs.sum() - both.runqlat.sum())) < slack


def test_histograms_count_what_the_records_say() -> None:
    with closing(bcc_probes()) as probes:
        with load("contend", "--duration", 1, "--sleepers", 8, "--groups", 0) as running:
            running.outcome()
        slots = probes.histogram_slots()
        records = records_of(probes)
        waits = records[records["kind"] < _MISSED]
        in_slots = slots["kinds"]["count"].sum(axis=(0, 2))
        # Switches go on between the two readings.
        for kind in (_WAKEUP, _PREEMPT):
            in_records = int((waits["kind"] == kind).sum())
            assert abs(in_records - int(in_slots[kind])) <= 20 + in_records // 100
        used = slots[slots["used"] != 0]
        assert len(used) > 0
        assert set(waits["cgroup"].tolist()) <= set(used["cgroup"].tolist())


def test_filters_are_applied_in_the_kernel() -> None:
    here, elsewhere = allowed_cpus()[:2]
    with (
        load("victim", "--duration", 9, "--cpu", here, "--comm", "wanted") as wanted,
        load("victim", "--duration", 9, "--cpu", here, "--comm", "other") as other,
    ):

        def seen(filters: Filters) -> set[int]:
            with closing(bcc_probes(Settings(filters=filters))) as probes:
                time.sleep(0.3)
                parts = [r for ring in probes.wait_rings if (r := ring.drain()) is not None]
            waits = [part[part["kind"] < _MISSED] for part in parts]
            return {pid for part in waits for pid in part["pid"].tolist()}

        assert seen(Filters(pids=(wanted.pid,))) == {wanted.pid}
        assert seen(Filters(comms=("wanted",))) == {wanted.pid}
        both = (wanted.pid, other.pid)
        assert seen(Filters(pids=both, cpus=(here,))) == {*both}
        assert seen(Filters(pids=both, policies=(1,))) == set()
        assert seen(Filters(pids=both, comms=("other",), cpus=(elsewhere,))) == set()
    with pytest.raises(TargetError, match="there is no CPU"):
        bcc_probes(Settings(filters=Filters(cpus=(4095,))))


def test_quota_is_told_from_contention_as_libbpf_does() -> None:
    with cgroup("bccquota", cpus=0.2) as group:
        targets = targets_in(group)
        with (
            closing(bcc_probes(targets=targets)) as ours,
            closing(libbpf_probes(targets=targets)) as theirs,
        ):
            before = group.cpu_stat().throttled_ns
            with load("hog", "--duration", 2, within=group) as running:
                running.outcome()
            throttled = group.cpu_stat().throttled_ns - before
            sums = []
            for probes in (ours, theirs):
                waits = records_of(probes)
                mine = waits[(waits["tid"] == running.pid) & (waits["kind"] < _MISSED)]
                assert group.id in mine["cgroup"]
                sums.append(int(mine["throttled_ns"].sum()))
    assert throttled > _SECOND
    assert abs(sums[0] - sums[1]) < 0.01 * sums[1]
    assert abs(sums[0] - throttled) < 0.1 * throttled


def test_cgroups_made_inside_a_wanted_one_are_wanted_and_named() -> None:
    with cgroup("bccnested") as group:
        settings = Settings(filters=Filters(cgroups=(group.name,)))
        with closing(bcc_probes(settings, targets_in(group, group.id))) as probes:
            child = group.child("born")
            with (
                load("victim", "--duration", 1, within=child) as inside,
                load("victim", "--duration", 1) as outside,
            ):
                inside.outcome()
                outside.outcome()
            waits = records_of(probes)
            assert probes.cgroup_ring is not None
            events = probes.cgroup_ring.drain()
            child_id, parent_id = child.id, group.id
    seen = set(waits[waits["kind"] < _MISSED]["pid"].tolist())
    assert inside.pid in seen
    assert outside.pid not in seen
    assert events is not None
    (made,) = events[events["id"] == child_id]
    assert int(made["kind"]) == 1
    assert int(made["parent"]) == parent_id
    assert bytes(made["path"]).decode() == child.name


def test_names_of_tasks_arrive() -> None:
    with closing(bcc_probes()) as probes:
        with load("rename") as running:
            running.outcome()
        assert probes.task_ring is not None
        events = probes.task_ring.drain()
    assert events is not None
    kinds = {int(k) for k in events[events["tid"] == running.pid]["kind"]}
    # fork, exec, rename and exit (enum task_event_kind)
    assert kinds >= {1, 2, 4}
    assert os.getpid() in set(events[events["tid"] == running.pid]["ppid"].tolist())
    assert b"rename" in {bytes(c) for c in events["comm"]}


def test_stacks_show_where_a_task_slept_and_who_woke_it() -> None:
    symbols = sorted(
        (int(address, 16), name)
        for address, _type, name, *_ in map(
            str.split, Path("/proc/kallsyms").read_text(encoding="ascii").splitlines()
        )
    )
    addresses = np.array([a for a, _ in symbols], np.uint64)

    def names(stack: Any) -> list[str]:
        frames = stack["addresses"][: stack["depth"]]
        return [symbols[i][1] for i in np.searchsorted(addresses, frames, side="right") - 1]

    with load("victim", "--duration", 3) as running:
        settings = Settings(
            filters=Filters(pids=(running.pid,)), stacks=Stacks(kernel=True, user=True, waker=True)
        )
        with closing(bcc_probes(settings)) as probes:
            time.sleep(0.5)
            waits = records_of(probes)
            assert probes.stack_ring is not None
            found = probes.stack_ring.drain()
    assert found is not None
    stacks = {int(s["id"]): s for s in found}
    woken = waits[(waits["kind"] == _WAKEUP) & (waits["stack_kernel"] != 0)]
    assert len(woken) > 50
    slept = [names(stacks[i]) for i in set(woken["stack_kernel"].tolist())]
    assert any("hrtimer_nanosleep" in " ".join(frames) for frames in slept)
    assert all(frames.index("__schedule") < len(frames) for frames in slept)
    wakers = [names(stacks[i]) for i in set(woken["waker_stack_kernel"].tolist()) if i]
    assert any("hrtimer_wakeup" in frames for frames in wakers)
    user = [stacks[i] for i in set(woken["stack_user"].tolist()) if i]
    assert user
    assert all(int(s["pid"]) == running.pid for s in user)


def test_works_from_kernel_headers_alone_but_for_quotas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without BTF: what its headers would say, which leaves the run queue out."""
    offsets = kernel_offsets()
    assert offsets
    public = {
        name: value
        for name, value in offsets.items()
        if not name.startswith(("cfs_rq_", "rq_")) and not name.endswith("cfs_rq")
    }
    monkeypatch.setattr(bcc, "kernel_offsets", lambda: None)
    monkeypatch.setattr(bcc_compiler, "offsets_from_headers", lambda: public)
    with (
        load("victim", "--duration", 3) as running,
        closing(bcc_probes()) as probes,
        closing(libbpf_probes()) as theirs,
    ):
        assert [n for n, _ in probes.not_attached] == ["tasks_at_start", "cpu_quota"]
        time.sleep(0.5)
        ours, expected = records_of(probes), records_of(theirs)
        lost = _unseen(probes) + _unseen(theirs)
    count = int((ours["pid"] == running.pid).sum())
    # Ours began earlier, while the other was being loaded.
    started = int(expected["end_ns"].min())
    late = int(((ours["pid"] == running.pid) & (ours["end_ns"] >= started)).sum())
    assert abs(late - int((expected["pid"] == running.pid).sum())) <= 5 + lost
    assert count >= late > 100


def test_says_what_to_install_where_there_is_no_bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcc_compiler, "MODULE_PATHS", ())
    with pytest.raises(CannotRecord, match="apt install python3-bpfcc"):
        bcc_probes()


def test_says_what_to_install_where_there_are_no_headers(tmp_path: Path) -> None:
    with pytest.raises(CannotRecord) as caught:
        bcc_compiler.offsets_from_headers(tmp_path / "missing")
    assert "\n" not in str(caught.value)
    assert "linux-headers-" in str(caught.value)


def test_a_source_that_does_not_compile_is_one_line(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text("int f(void *ctx) { return nothing; }\n", encoding="ascii")
    with pytest.raises(CannotRecord, match=r"undeclared identifier 'nothing'") as caught:
        bcc_compiler.compile_programs(source, [], ("f",))
    assert "\n" not in str(caught.value)


def test_nothing_stays_open_after_close() -> None:
    def open_bpf() -> list[str]:
        links = (str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink())
        return sorted(link for link in links if "bpf" in link or "raw_tracepoint" in link)

    gc.collect()  # what tests before this one left
    before = open_bpf()
    probes = bcc_probes()
    assert len(open_bpf()) > len(before) + 2 * 18
    time.sleep(0.05)
    probes.close()
    # The mapped tables stay readable.
    assert all("map" in link for link in set(open_bpf()) - set(before))
    assert counted(probes)["switches"] > 0
    del probes
    gc.collect()
    assert open_bpf() == before
