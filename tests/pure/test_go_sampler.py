"""The sampler of Go processes on memory that may hold anything."""

from __future__ import annotations

import struct
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sltrace.capture.golang import sampler, samplerthread, stackwalk
from sltrace.capture.golang.rows import NEW, PREEMPTED, YIELDED, Reasons
from sltrace.capture.golang.sampler import Sampler
from sltrace.capture.golang.samplerthread import SamplerThread
from sltrace.target.go.memory import Memory, UnreadableError
from sltrace.target.go.offsets import OFFSETS
from sltrace.target.go.process import GoProcess

_HEAP = 0xC000000000
_MAPPED = 1 << 16
_EDGES = (0, 1, 8, 15, 16, 17, 2048, 5000, _HEAP, (1 << 47) - 16, 1 << 47, (1 << 63) - 1, 1 << 63)


class Strange(Memory):
    """Memory full of numbers at the edges of what fits, and of pointers to itself."""

    def __init__(self, seed: int, readable: float) -> None:
        super().__init__(1)
        self._random = np.random.default_rng(seed)
        self._readable = readable

    def _words(self, count: int) -> NDArray[np.uint64]:
        edges = np.array([*_EDGES, *((1 << 64) - n for n in range(1, 40))], np.uint64)
        chosen = self._random.choice(edges, count)
        near = np.uint64(_HEAP) + self._random.integers(0, 4096, count, np.uint64)
        return np.where(self._random.random(count) < 0.5, near, chosen)

    def read(self, address: int, size: int) -> bytes:
        if size > _MAPPED or self._random.random() > self._readable:
            raise UnreadableError("it is gone")
        return self._words(size // 8 + 1).tobytes()[:size]

    def pieces(
        self, addresses: NDArray[np.uint64], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        n = len(addresses)
        whole = self._words(n * (size // 8 + 1)).view(np.uint8)[: n * size].reshape(n, size).copy()
        return whole, self._random.random(n) < self._readable


def strange(version: tuple[int, int], memory: Memory) -> GoProcess:
    """A process of that version with such memory."""
    variables = SimpleNamespace(allp=0x1000, allgs=0x2000, allgs_len=0x3000)
    return cast(
        GoProcess,
        SimpleNamespace(
            pid=1,
            memory=memory,
            offsets=OFFSETS[version],
            bias=0,
            sched=0x4000,
            variables=variables,
            histograms={"/sched/latencies:seconds": 0x5000},
            reasons=["", "GC assist marking"],
            program=0,
            is_alive=lambda: True,
            let_go=lambda: None,
        ),
    )


@settings(max_examples=40)
@given(
    version=st.sampled_from(sorted(OFFSETS)),
    seed=st.integers(0, 1 << 32),
    readable=st.sampled_from([1.0, 0.9, 0.2]),
)
def test_memory_that_may_hold_anything(
    version: tuple[int, int], seed: int, readable: float
) -> None:
    looking = Sampler(strange(version, Strange(seed, readable)))
    for now in range(3):
        for look in (looking.tick, looking.scan):
            try:
                look(now)
            except UnreadableError:
                continue
    for scan in looking.samples.scans:
        assert all(c > 0 for c in scan.counts)
        assert all(0 < i < 1 << 63 for i in scan.stack_ids)
        assert all(1 <= len(a) <= stackwalk.DEPTH for a in scan.stacks.values())


class Still(Memory):
    """Of a process with one P, which is on goroutine 7 all the time."""

    def read(self, address: int, size: int) -> bytes:
        known = {0x1000: (0x8000, 1), 0x8000: (0x9000,)}.get(address, ())
        return struct.pack(f"<{len(known)}Q", *known).ljust(size, b"\0")

    def pieces(
        self, addresses: NDArray[np.uint64], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        whole = np.zeros((len(addresses), size), np.uint8)
        if size == 16:
            # Status and number of the goroutine.
            whole[:] = np.frombuffer(struct.pack("<QQ", 2, 7), np.uint8)
        elif size == 8:
            whole[:] = np.frombuffer(struct.pack("<Q", 0xB000), np.uint8)
        else:
            p = whole.view(sampler._p_layout(OFFSETS[max(OFFSETS)]))
            p["status"], p["m"] = 1, 0xA000
        return whole, np.ones(len(addresses), bool)


def test_a_hold_is_what_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the time in which the recorder was kept from reading, or the process from running."""
    ms = 1_000_000
    used = iter([10, 20, 20, 30])
    monkeypatch.setattr(sampler, "cpu_ns", lambda pid: next(used))
    looking = Sampler(strange(max(OFFSETS), Still(1)))
    now = time.monotonic_ns()
    for after_ms in (-200, 600, 1200, 1900):
        looking.tick(now + after_ms * ms)
    holds = {ns: value for ns, name, _, value in looking.samples.gauges if name == "p_hold_ns"}
    # Read 200 ms late at first; it stood still before the third reading.
    assert list(holds) == [now + 600 * ms, now + 1900 * ms]
    assert 400 * ms < holds[now + 600 * ms] <= 600 * ms
    assert holds[now + 1900 * ms] == 700 * ms


class Growing(Memory):
    """Of a process that makes Ps and goroutines; places for them are there first."""

    def __init__(self) -> None:
        super().__init__(1)
        self.ps = [0x9000, 0]
        self.goroutines = 10

    def read(self, address: int, size: int) -> bytes:
        # What is at the old place stays as it was.
        self.goroutines += 1
        at = 0x100000 * self.goroutines
        known = {
            0x1000: (0x8000, len(self.ps)), 0x8000: self.ps, 0x2000: (at,),
            0x3000: (self.goroutines,),
        }.get(address, ())  # fmt: skip
        if address >= 0x100000 and size > 8 * (address // 0x100000):
            raise UnreadableError("beyond its end")
        return struct.pack(f"<{len(known)}Q", *known).ljust(size, b"\0")

    def pieces(
        self, addresses: NDArray[np.uint64], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        return np.zeros((len(addresses), size), np.uint8), np.ones(len(addresses), bool)


def test_what_grows_while_it_is_read() -> None:
    memory = Growing()
    looking = Sampler(strange(max(OFFSETS), memory))
    looking.tick(1)
    assert looking._ps.tolist() == [0x9000, 0]
    memory.ps = [0x9000, 0xA000]
    looking.tick(2)
    assert looking._ps.tolist() == [0x9000, 0xA000]
    looking.scan(3)


def test_reasons_of_a_table_that_has_none_of_the_functions() -> None:
    process = SimpleNamespace(
        table=SimpleNamespace(function=lambda _: None, is_start=lambda at: at < 5),
        inlining=SimpleNamespace(innermost=lambda _: ""),
        bias=0,
        reasons=["", "sleep"],
    )
    reasons = Reasons(cast(GoProcess, process))
    none = np.zeros(2, np.uint64)
    found = reasons.of(np.array([4, 100], np.uint64), np.array([1, 1], np.uint8), none)
    assert [reasons.words[code] for code in found] == [NEW, PREEMPTED]


def test_who_was_parked_has_not_yielded() -> None:
    """Whatever is said of where it goes on."""
    process = SimpleNamespace(
        table=SimpleNamespace(is_start=lambda at: at < 5),
        inlining=SimpleNamespace(innermost=lambda at: "runtime.Gosched" if at == 9 else "main.f"),
        bias=0,
        reasons=["", "sleep", "IO wait"],
    )
    reasons = Reasons(cast(GoProcess, process))
    places, blocked = np.array([10, 10, 11, 11], np.uint64), np.array([0, 7, 0, 7], np.uint64)
    found = reasons.of(places, np.array([2, 2, 2, 1], np.uint8), blocked)
    assert [reasons.words[code] for code in found] == [YIELDED, "IO wait", PREEMPTED, "sleep"]
    assert not len(reasons.of(places[:0], np.empty(0, np.uint8), blocked[:0]))


def test_frames_at_the_end_of_the_address_space() -> None:
    frames = np.array([_HEAP, (1 << 64) - 8, (1 << 64) - 16], np.uint64)
    tops = np.array([(1 << 64) - 1, (1 << 64) - 1, 4], np.uint64)

    class Last(Strange):
        def _words(self, count: int) -> NDArray[np.uint64]:
            return np.full(count, (1 << 64) - 16, np.uint64)

    stacks = stackwalk.walk(Last(1, 1.0), frames, frames, tops)
    assert stacks.depth.tolist() == [2, 1, 1]


def test_one_process_does_not_end_the_sampling_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplerthread, "SCAN_S", 0.0)
    process = strange(max(OFFSETS), Strange(1, 0.0))

    class Broken(Sampler):
        def tick(self, now: int) -> None:
            raise IndexError("out of bounds")

    broken, other = Broken(process), Sampler(process)
    ticked: list[int] = []
    monkeypatch.setattr(other, "tick", ticked.append)
    found: Any = ([], False)
    thread = SamplerThread(lambda: found)
    thread.start([broken, other])
    while len(ticked) < 2:
        pass
    thread.stop()
    assert "IndexError: out of bounds" in broken.failure
    assert other.failure == ""
    assert other.ended_ns is None
