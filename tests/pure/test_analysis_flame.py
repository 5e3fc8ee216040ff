from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.flame import REST, Flame, flame
from sltrace.analysis.latency import stat
from sltrace.analysis.selection import Selection
from sltrace.analysis.stacks import grouped_stacks
from sltrace.errors import UsageError
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

KERNEL = 0xFFFFFFFF81000000
STACKS = [
    {"stack_id": 1, "space": "kernel", "pid": 0, "addresses": [KERNEL + 1, KERNEL + 2]},
    {"stack_id": 2, "space": "user", "pid": 100, "addresses": [0x1010, 0x1020]},
    {"stack_id": 3, "space": "user", "pid": 200, "addresses": [0x1010, 0x9000]},
    {"stack_id": 4, "space": "user", "pid": 100, "addresses": []},
]
FRAMES = [
    {"space": "kernel", "pid": 0, "address": KERNEL + 1, "name": "schedule"},
    {"space": "kernel", "pid": 0, "address": KERNEL + 2, "name": "do_wait"},
    {"space": "user", "pid": 100, "address": 0x1010, "name": "read", "module": "libc.so.6"},
    {"space": "user", "pid": 100, "address": 0x1020, "name": "main", "module": "web"},
]
MAPPINGS = [
    {"pid": 200, "start": 0x1000, "end": 0x2000, "offset": 0x400, "path": "/opt/app"},
    {"pid": 100, "start": 0x1000, "end": 0x2000, "offset": 0, "path": "/usr/bin/web"},
]
NAMES = {
    1: ["do_wait", "schedule"],
    2: ["main", "read"],
    3: ["[unknown]", "app+0x410"],
    4: ["[stack missing from the trace]"],
    9: ["[stack missing from the trace]"],
}


def make(folder: Path, waits: list[dict[str, Any]]) -> Trace:
    path = make_trace(folder, waits, stacks=STACKS, frames=FRAMES, mappings=MAPPINGS)
    return Trace.open(path)


def by_names(result: Flame) -> dict[tuple[str, ...], tuple[int, int]]:
    return {
        tuple(result.names[i] for i in stack): (count, ns)
        for stack, count, ns in zip(result.stacks, result.counts, result.wait_ns, strict=True)
    }


def test_user_frames_are_outside_kernel_frames_and_root_is_first(tmp_path: Path) -> None:
    trace = make(tmp_path, [{"stack_kernel": 1, "stack_user": 2, "wait_ns": 5}])
    assert by_names(flame(trace)) == {("main", "read", "do_wait", "schedule"): (1, 5)}


def test_addresses_without_a_symbol(tmp_path: Path) -> None:
    trace = make(tmp_path, [{"stack_user": 3, "wait_ns": 5}])
    assert by_names(flame(trace, roots=["cpu", "trace_id"])) == {
        ("0", "[trace_id unknown]", "[unknown]", "app+0x410"): (1, 5)
    }


def test_the_waker_has_its_own_stack(tmp_path: Path) -> None:
    waits = [{"stack_kernel": 1, "waker_stack_user": 2, "wait_ns": 3}, {"wait_ns": 4}]
    assert by_names(flame(make(tmp_path, waits), which="waker")) == {
        ("main", "read"): (1, 3),
        ("[no waker stack recorded]",): (1, 4),
    }


def test_what_the_probe_itself_ran_in_is_cut_off(tmp_path: Path) -> None:
    """The program, which has no name any more once it is unloaded, and its way there."""
    inner = ("_einittext", "bpf_trace_run1", "__traceiter_sched_waking", "try_to_wake_up")
    frames = [
        {"space": "kernel", "pid": 0, "address": KERNEL + i, "name": name}
        for i, name in enumerate((*inner, "bpf_trace_run1"))
    ]
    stack = {"stack_id": 1, "space": "kernel", "pid": 0}
    stacks = [stack | {"addresses": [KERNEL + i for i in range(len(frames))]}]
    path = make_trace(tmp_path, [{"waker_stack_kernel": 1}], stacks=stacks, frames=frames)
    (found,) = by_names(flame(Trace.open(path), which="waker"))
    assert found == ("bpf_trace_run1", "try_to_wake_up")


IDS = st.sampled_from([None, 1, 2, 3, 4, 9])


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "wait_ns": st.integers(0, 10**9),
                "stack_kernel": st.sampled_from([None, 1, 9]),
                "stack_user": IDS,
                "comm": st.sampled_from(["web", "db"]),
                "cpu": st.integers(0, 2),
            }
        ),
        max_size=20,
    ),
    st.none() | st.integers(0, 2),
    st.integers(1, 3),
)
@settings(max_examples=30)
def test_totals_are_those_of_stat_and_of_a_loop(
    waits: list[dict[str, Any]], cpu: int | None, limit: int
) -> None:
    selection = Selection(values={} if cpu is None else {"cpu": [cpu]})
    with tempfile.TemporaryDirectory() as folder:
        trace = make(Path(folder), waits)
        whole = flame(trace, selection, roots=["comm"])
        cut = flame(trace, selection, limit=limit)
        groups = stat(trace, [], selection).groups
    expected: Counter[tuple[str, ...]] = Counter()
    counts: Counter[tuple[str, ...]] = Counter()
    for wait in waits:
        if cpu is not None and wait["cpu"] != cpu:
            continue
        ids = [wait[c] for c in ("stack_user", "stack_kernel") if wait[c]]
        frames = [name for i in ids for name in NAMES[i]] or ["[no stack recorded]"]
        expected[wait["comm"], *frames] += wait["wait_ns"]
        counts[wait["comm"], *frames] += 1
    assert by_names(whole) == {key: (counts[key], expected[key]) for key in expected}
    total = (sum(g.count for g in groups), sum(g.total_ns for g in groups))
    assert (sum(whole.counts), sum(whole.wait_ns)) == total
    assert (sum(cut.counts), sum(cut.wait_ns)) == total
    assert sum(name != (REST,) for name in by_names(cut)) <= limit


def test_the_same_function_of_two_processes_is_one_frame(tmp_path: Path) -> None:
    stacks = [
        {"stack_id": i, "space": "user", "pid": i, "addresses": [0x10 * i]} for i in range(1, 4)
    ]
    frames = [{"space": "user", "pid": i, "address": 0x10 * i, "name": "f"} for i in range(1, 4)]
    waits = [{"stack_user": i, "wait_ns": 10} for i in range(1, 4)]
    trace = Trace.open(make_trace(tmp_path, waits, stacks=stacks, frames=frames))
    assert by_names(flame(trace)) == {("f",): (3, 30)}


def test_thousands_of_mappings_are_no_product_with_addresses(tmp_path: Path) -> None:
    """Of one process that has 12,000 and stacks of 40,000 addresses, and of another beside it."""
    few, many = (_much_mapped(tmp_path / str(times), times) for times in (1, 2))
    for frame in grouped_stacks(few).frames:
        if frame.address:
            i, within = divmod(frame.address - _MAPPED_FROM, 0x1000)
            path, offset = (f"/{frame.pid}/{i}", i + within) if within < 0x800 else ("", None)
            assert (frame.path, frame.file_offset) == (path, offset)
    assert sum(bool(f.path) for f in grouped_stacks(few).frames) > 15_000
    # As a product these are half a billion pairs, which took 4 s, and then four times as many.
    assert _naming_s(many) < 3 * _naming_s(few)


_MAPPED_FROM = 0x7F0000000000


def _much_mapped(folder: Path, times: int) -> Trace:
    """That many times the mappings, each half a page with nothing behind, and addresses."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    start = _MAPPED_FROM + np.arange(times * 12_000) * 0x1000
    maps, stacks = [], []
    for pid, many in ((5, times * 40_000), (1 << 30, times * 2000)):
        for i, at in enumerate(start.tolist()):
            path = f"/{pid}/{i}"
            maps.append({"pid": pid, "start": at, "end": at + 0x800, "offset": i, "path": path})
        addresses = rng.choice(start, many) + rng.integers(0, 0x1000, many)
        stacks += [
            {"stack_id": pid + i, "space": "user", "pid": pid, "addresses": own.tolist()}
            for i, own in enumerate(addresses.reshape(-1, 100))
        ]
    waits = [{"stack_user": s["stack_id"]} for s in stacks]
    return Trace.open(make_trace(folder, waits, mappings=maps, stacks=stacks))


def _naming_s(trace: Trace) -> float:
    """Seconds of a CPU, which are more where others disturb it."""
    took = []
    for _ in range(2):
        begin = time.process_time()
        grouped_stacks(trace)
        took.append(time.process_time() - begin)
    return min(took)


def test_mappings_that_all_hold_all_addresses_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sltrace.analysis.frames._MOST_HELD", 20)
    stacks = [{"stack_id": 1, "space": "user", "pid": 5, "addresses": list(range(1, 11))}]
    maps = [{"pid": 5, "start": 0, "end": 100 + i, "offset": 0, "path": "/x"} for i in range(50)]
    maps += [{"pid": 5, "start": 9, "end": 3, "offset": 0, "path": "/x"}]
    trace = Trace.open(make_trace(tmp_path, [{"stack_user": 1}], mappings=maps, stacks=stacks))
    assert [f.path for f in grouped_stacks(trace).frames if f.address] == ["/x"] * 10


def test_a_mapping_that_overflows_is_only_unnamed(tmp_path: Path) -> None:
    top = 2**64 - 1
    trace = Trace.open(
        make_trace(
            tmp_path,
            [{"stack_user": 1}],
            stacks=[{"stack_id": 1, "space": "user", "pid": 5, "addresses": [top - 1, 0]}],
            mappings=[{"pid": 5, "start": 0, "end": top, "offset": top, "path": "/x"}],
        )
    )
    grouped = grouped_stacks(trace)
    assert grouped.count == 1
    assert all(f.file_offset is None or f.file_offset < 2**63 for f in grouped.frames)


def test_an_unknown_root_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="waker"):
        flame(make(tmp_path, [{}]), roots=["waker"])


def test_a_function_has_one_language(tmp_path: Path) -> None:
    """Whoever took the stack: the kernel's unwinder, or one that knows Go."""
    names = {1: "main.serve", 2: "runtime.gopark", 3: "sqlite3_step", 4: "libc_read.part.0"}
    frames = [
        {"space": "user", "pid": 100, "address": a, "name": n, "language": "native"}
        for a, n in names.items()
    ]
    frames.append({"space": "go", "pid": 100, "address": 2, "name": names[2], "language": "go"})
    stacks = [
        {"stack_id": 1, "space": "user", "pid": 100, "addresses": [4, 3, 2, 1]},
        {"stack_id": 2, "space": "go", "pid": 100, "addresses": [2, 1]},
    ]
    targets = [{"pid": 100, "runtime": "go", "exe": "/svc", "level": 2}]
    mappings = [
        {"pid": 100, "start": 1, "end": 4, "offset": 0, "path": "/svc"},
        {"pid": 100, "start": 4, "end": 9, "offset": 0, "path": "/libc.so"},
    ]
    trace = Trace.open(
        make_trace(
            tmp_path, [{"stack_user": 1}, {"stack_runtime": 2}],
            stacks=stacks, frames=frames, targets=targets, mappings=mappings,
        )
    )  # fmt: skip
    found = grouped_stacks(trace).frames
    assert {f.name: f.language for f in found if f.name in names.values()} == {
        "main.serve": "go", "runtime.gopark": "go", "sqlite3_step": "native",
        "libc_read.part.0": "native",
    }  # fmt: skip
