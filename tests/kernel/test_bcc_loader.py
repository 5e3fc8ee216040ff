"""The BCC loader alone: what it attaches, filters and names, and where it cannot be used."""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.capture import bcc_compiler
from sltrace.capture.bcc import BccProbes
from sltrace.capture.histograms import SlotUse
from sltrace.capture.kernel_offsets import kernel_offsets
from sltrace.capture.maps import lookup, map_keys
from sltrace.capture.probes import LibbpfProbes, Probes
from sltrace.capture.settings import Filters, Settings, Stacks
from sltrace.errors import CannotRecord, TargetError
from tests.support.cgroups import cgroup
from tests.support.loaders import (
    MISSED,
    NEEDS_BCC,
    PREEMPT,
    WAKEUP,
    bcc_probes,
    counted,
    libbpf_probes,
    records_of,
    targets_in,
    unseen,
)
from tests.support.loads import allowed_cpus, load, until_switched

pytestmark = NEEDS_BCC

_SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def probes() -> Iterator[BccProbes]:
    """Of the whole machine: to compile them takes 3 s of a CPU."""
    with closing(bcc_probes()) as attached:
        yield attached


def test_attaches_everything_but_the_iterator_without_kernel_headers(probes: BccProbes) -> None:
    assert [name for name, _why in probes.not_attached] == ["tasks_at_start"]
    assert "sched_switch" in probes.attached
    assert len(probes.program_fds()) == len(probes.attached) == 18
    # The compiler stayed in its own process.
    assert "libbcc" not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert not any(name == "bcc" or name.startswith("bcc.") for name in sys.modules)


def test_histograms_count_what_the_records_say(probes: BccProbes) -> None:
    def counts() -> tuple[NDArray[Any], int]:
        by_kind: NDArray[Any] = probes.slots.counts["kinds"]["count"].sum(axis=(0, 2))
        return by_kind.astype(np.int64), counted(probes)["ring_full"]

    # Switches go on between two readings: what is read lies between what was and what is counted.
    first = counts()
    for ring in probes.wait_rings:
        ring.drain()
    begun = counts()
    with load("contend", "--duration", 1, "--sleepers", 8, "--groups", 0) as running:
        running.outcome()
    ended = counts()
    records = records_of(probes)
    last = counts()
    waits = records[records["kind"] < MISSED]
    # Each CPU may be between its count and its record.
    under_way = os.cpu_count() or 1
    for kind in (WAKEUP, PREEMPT):
        in_records = int((waits["kind"] == kind).sum())
        least = int(ended[0][kind] - begun[0][kind]) - (last[1] - first[1])
        assert least - under_way <= in_records <= int(last[0][kind] - first[0][kind]) + under_way
        assert least > 100
    owners = probes.slots.owners
    used = owners[owners["use"] != SlotUse.FREE]
    assert len(used) > 0
    assert set(waits["cgroup"].tolist()) <= set(used["cgroup"].tolist())


def test_names_of_tasks_arrive(probes: BccProbes) -> None:
    probes.task_ring.drain()
    with load("rename") as running:
        running.outcome()
    events = probes.task_ring.drain()
    assert events is not None
    kinds = {int(k) for k in events[events["tid"] == running.pid]["kind"]}
    # fork, exec, and the exit of the last thread (enum task_event_kind)
    assert kinds >= {1, 2, 7}
    assert os.getpid() in set(events[events["tid"] == running.pid]["ppid"].tolist())
    assert b"rename" in {bytes(c) for c in events["comm"]}


def test_filters_are_applied_in_the_kernel() -> None:
    here, elsewhere = allowed_cpus()[:2]
    with (
        load("victim", "--duration", 60, "--cpu", here, "--comm", "wanted") as wanted,
        load("victim", "--duration", 60, "--cpu", here, "--comm", "other") as other,
    ):

        def seen(filters: Filters) -> set[int]:
            with closing(bcc_probes(Settings(filters=filters))) as probes:
                until_switched(10, wanted.pid, other.pid)
                parts = [r for ring in probes.wait_rings if (r := ring.drain()) is not None]
            waits = [part[part["kind"] < MISSED] for part in parts]
            return {pid for part in waits for pid in part["pid"].tolist()}

        both = (wanted.pid, other.pid)
        assert seen(Filters(pids=(wanted.pid,))) == {wanted.pid}
        assert seen(Filters(comms=("wanted",), policies=(0,))) == {wanted.pid}
        assert seen(Filters(pids=both, cpus=(here,))) == {*both}
        assert seen(Filters(pids=both, policies=(1,))) == set()
        assert seen(Filters(pids=both, comms=("other",), cpus=(elsewhere,))) == set()
    with pytest.raises(TargetError, match="there is no CPU"):
        bcc_probes(Settings(filters=Filters(cpus=(4095,))))


def test_quota_is_told_from_contention_as_libbpf_does() -> None:
    with cgroup("bccquota", cpus=0.2) as group:
        # Nobody empties the rings meanwhile: all of a busy machine would not fit in.
        wanted = Settings(filters=Filters(cgroups=(group.name,))), targets_in(group, group.id)
        with closing(bcc_probes(*wanted)) as ours, closing(libbpf_probes(*wanted)) as theirs:
            before = group.cpu_stat().throttled_ns
            with load("hog", "--duration", 2, within=group) as running:
                running.outcome()
            throttled = group.cpu_stat().throttled_ns - before
            sums = []
            for probes in (ours, theirs):
                waits = records_of(probes)
                mine = waits[(waits["tid"] == running.pid) & (waits["kind"] < MISSED)]
                assert group.id in mine["cgroup"]
                sums.append(int(mine["throttled_ns"].sum()))
    # As much of the time as others left it a CPU.
    assert throttled > _SECOND // 4
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
            events = probes.cgroup_ring.drain()
            child_id, parent_id = child.id, group.id
    seen = set(waits[waits["kind"] < MISSED]["pid"].tolist())
    assert inside.pid in seen
    assert outside.pid not in seen
    assert events is not None
    (made,) = events[events["id"] == child_id]
    assert int(made["kind"]) == 1
    assert int(made["parent"]) == parent_id
    assert bytes(made["path"]).decode() == child.name


def test_children_are_followed() -> None:
    settings = Settings(filters=Filters(pids=(os.getpid(),)))
    with closing(bcc_probes(settings)) as probes:
        with load("victim", "--duration", 1) as child:
            child.outcome()
        waits = records_of(probes)
        assert [name for name, _why in probes.not_attached] == ["tasks_at_start"]
        # Those that ended make room.
        keys = map_keys(probes._maps["wanted_pids"], 4)
        wanted = {int.from_bytes(key, "little") for key in keys}
        assert os.getpid() in wanted
        assert child.pid not in wanted
    assert child.pid in set(waits[waits["kind"] < MISSED]["pid"].tolist())


@pytest.mark.parametrize("loader", [bcc_probes, libbpf_probes])
def test_cgroups_that_come_while_probes_load_and_go_later(loader: Callable[..., Probes]) -> None:
    """Loading takes a second where CPUs are busy; and whole days of cgroups may follow."""
    with cgroup("lateborn") as group:
        settings = Settings(filters=Filters(cgroups=(group.name,)))
        born: list[int] = []

        def wanted() -> list[int]:
            there = [group.id, *born]
            if not born:
                born.append(group.child("born").id)
            return there

        targets = replace(targets_in(group), cgroup_ids=wanted)
        with closing(loader(settings, targets)) as probes:
            child = replace(group, path=group.path / "born")
            with load("victim", "--duration", 1, within=child) as inside:
                inside.outcome()
            waits = records_of(probes)
            table = _wanted_cgroups(probes)
            assert _is_wanted(table, born[0])
            child.path.rmdir()
            assert not _is_wanted(table, born[0])
            assert _is_wanted(table, group.id)
    assert inside.pid in set(waits[waits["kind"] < MISSED]["pid"].tolist())


def _wanted_cgroups(probes: Probes) -> int:
    if isinstance(probes, BccProbes):
        return probes._maps["wanted_cgroups"]
    assert isinstance(probes, LibbpfProbes)
    return probes._tables()["wanted_cgroups"]


def _is_wanted(table: int, cgroup_id: int) -> bool:
    return bool(lookup(table, cgroup_id.to_bytes(8, "little"), 1).any())


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

    # It must outlive the compiler: 3 s and more.
    with load("victim", "--duration", 30) as running:
        settings = Settings(
            filters=Filters(pids=(running.pid,)), stacks=Stacks(kernel=True, user=True, waker=True)
        )
        with closing(bcc_probes(settings)) as probes:
            until_switched(150, running.pid)
            waits = records_of(probes)
            found = probes.stack_ring.drain()
    assert found is not None
    stacks = {int(s["id"]): s for s in found}
    woken = waits[(waits["kind"] == WAKEUP) & (waits["stack_kernel"] != 0)]
    assert len(woken) > 50
    slept = [names(stacks[i]) for i in set(woken["stack_kernel"].tolist())]
    assert any("hrtimer_nanosleep" in " ".join(frames) for frames in slept)
    assert all(frames.index("__schedule") < len(frames) for frames in slept)
    wakers = [names(stacks[i]) for i in set(woken["waker_stack_kernel"].tolist()) if i]
    assert any("hrtimer_wakeup" in frames for frames in wakers)
    user = [stacks[i] for i in set(woken["stack_user"].tolist()) if i]
    assert user
    assert all(int(s["pid"]) == running.pid for s in user)


def _in_headers() -> set[str]:
    """Offsets that the probes' source takes from kernel headers."""
    source = bcc_compiler.source_path().with_name("kernel_offsets.bcc.c").read_text("ascii")
    return set(re.findall(r"^OFFSET\((\w+),", source, re.MULTILINE))


def test_works_from_kernel_headers_alone_but_for_quotas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without BTF: what its headers would say, which leaves the run queue out."""
    offsets = kernel_offsets()
    assert offsets
    public = {name: value for name, value in offsets.items() if name in _in_headers()}
    kept_back = offsets.keys() - public
    assert all("rq" in name.split("_") for name in kept_back), kept_back
    monkeypatch.setattr("sltrace.capture.bcc.kernel_offsets", lambda: None)
    monkeypatch.setattr(bcc_compiler, "offsets_from_headers", lambda: public)
    with (
        load("victim", "--duration", 30) as running,
        closing(bcc_probes()) as probes,
        closing(libbpf_probes()) as theirs,
    ):
        assert [n for n, _ in probes.not_attached] == ["tasks_at_start", "cpu_quota"]
        until_switched(150, running.pid)
        ours, expected = records_of(probes), records_of(theirs)
        lost = unseen(probes) + unseen(theirs)
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
