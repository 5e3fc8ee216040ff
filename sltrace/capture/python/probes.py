"""The loaded Python probes: their rings and counters."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import kernel, libbpf, sizes, uprobes
from sltrace.capture.btf import Btf
from sltrace.capture.maps import EXIST, NOEXIST, lookup, update_map, view
from sltrace.capture.probes import object_path
from sltrace.capture.ring import Ring
from sltrace.capture.settings import Settings, each_ns
from sltrace.errors import CannotRecord
from sltrace.symbols.usdt import Marker

SAMPLE_HZ = 99
"""Not 100, so that samples do not keep step with what a program does 100 times a second."""
_MAX_FILES = 256
"""Interpreters' files whose collector is timed."""
_RINGS = {
    "python_stack_ring": ("python_stack", 8 << 20),
    "python_wait_ring": ("python_wait", 8 << 20),
    "python_sample_ring": ("python_sample", 1 << 20),
    "python_event_ring": ("python_event", 256 << 10),
    "stack_ring": ("stack_record", 1 << 20),
    "python_name_ring": ("python_name", 128 << 10),
}
"""Records of each, and its bytes at most."""
_RING_BYTES_OF_CPU = 2 << 20
"""What a CPU can fill: stacks are capped by CPU."""
_TASKS = ("python_fork", "python_exec", "python_exit")
_CALLS = ("python_sys_enter", "python_sys_exit")
_COLLECTOR = ("python_gc_begin", "python_gc_end")
_SWITCH = ("python_switch", "python_switch_before_5_18")


@dataclass(frozen=True)
class Collector:
    """Where a file has the garbage collector.

    Attributes:
        functions: Offsets of the function, in all its forms, where it is named.
        begins: Else the marked places where a collection begins.
        ends: And where it ends.
    """

    functions: Sequence[int] = ()
    begins: Sequence[Marker] = ()
    ends: Sequence[Marker] = ()


class PythonProbes:
    """Loads at once, attaches on `attach`.

    Args:
        settings: What to record.
        tags_fd: The map of tags that all objects share.
        cgroup_v1: Whether cgroups are those of the v1 cpu tree.

    Raises:
        CannotRecord: The kernel refused.
    """

    def __init__(self, settings: Settings, tags_fd: int, *, cgroup_v1: bool) -> None:
        if platform.machine() != "x86_64":
            raise CannotRecord("Python is looked into on x86-64 only", "the kernel's view works")
        self._settings = settings
        path = object_path("python")
        layouts = Btf.of_object(path)
        self.process_layout = layouts.dtype("python_process")
        self.attached: list[str] = []
        self.not_attached: list[tuple[str, str]] = []
        self._collectors: set[tuple[int, int]] = set()
        self._links: list[int] = []
        self._closed = False
        cpus = libbpf.possible_cpus()
        self._object = libbpf.Object(path)
        try:
            self._load(layouts, tags_fd, cgroup_v1, cpus)
        except BaseException:
            self._object.close()
            raise
        maps = self._object.maps
        rings = (
            Ring(maps[name].fd, _ring_bytes(name, cpus), layouts.dtype(record))
            for name, (record, _) in _RINGS.items()
        )
        self.stacks, self.waits, self.samples, self.events, self.native, self.names = rings
        self._cpus = view(maps["python_cpus"].fd, cpus, layouts.dtype("python_cpu"))
        maybe = layouts.dtype("python_maybe")
        told = view(maps["python_maybe"].fd, 1, maybe, writable=True)
        self._maybe, self._epochs = told["pid"][0], told["epoch"][0]
        numbers = layouts.enumerators("python_counter")
        self.counter_names = [
            n.lower() for n in sorted(numbers, key=numbers.__getitem__) if n[0] == "P"
        ]

    def _load(self, layouts: Btf, tags_fd: int, cgroup_v1: bool, cpus: int) -> None:
        config = np.zeros(1, layouts.dtype("python_config"))
        config["stack_ns"] = each_ns(self._settings.python.rate_per_cpu)
        config["cgroup_v1"] = cgroup_v1
        config["loops"] = self._settings.python.loops
        config["sample_kernel"] = self._settings.stacks.kernel
        maps = self._object.maps
        maps[".rodata"].write_initial(layouts.variable_offset(".rodata", "cfg"), config.tobytes())
        maps["python_cpus"].resize(cpus)
        for name in _RINGS:
            maps[name].resize(_ring_bytes(name, cpus))
        maps["task_tags"].reuse(tags_fd)
        self._switch = _SWITCH[0 if kernel.tracepoint_arguments("sched_switch") == 4 else 1]
        for name in _SWITCH:
            self._object.programs[name].autoload(name == self._switch)
        for name in _CALLS:
            self._object.programs[name].autoload(self._settings.python.loops)
        for name in _COLLECTOR:
            self._object.programs[name].expect_attach(uprobes.attach_type())
        self._object.load()

    def attach(self) -> None:
        """Attaches; the switch last, when everything it needs is there.

        Raises:
            CannotRecord: The kernel refused the switch.
        """
        for name in (*_TASKS, *(_CALLS if self._settings.python.loops else ())):
            self._optional(name, lambda name=name: self._object.attach(name))
        self._optional(
            "python_sample", lambda: self._object.attach_sampler("python_sample", SAMPLE_HZ)
        )
        self._object.attach(self._switch)
        self.attached.append(self._switch)

    def attach_collector(self, file: tuple[int, int], path: Path, places: Collector) -> None:
        """Times the garbage collector of an interpreter's file; once for each file.

        Copies of one build are several: uprobes are of a file.

        Args:
            file: Device and inode.
            path: Where it is.
            places: Of its collector.
        """
        if self._closed or file in self._collectors or len(self._collectors) >= _MAX_FILES:
            return
        self._collectors.add(file)
        at_return = bool(places.functions)
        begins = [Marker(offset, 0) for offset in places.functions] or places.begins
        ends = begins if at_return else places.ends

        def attach() -> None:
            for name, markers, returns in zip(
                _COLLECTOR, (begins, ends), (False, at_return), strict=True
            ):
                self._attach_markers(name, path, markers, at_return=returns)

        self._optional("python_gc", attach)

    def _attach_markers(
        self, name: str, path: Path, markers: Sequence[Marker], *, at_return: bool
    ) -> None:
        self._links += uprobes.attach(
            self._object.programs[name].fd,
            path,
            [marker.offset for marker in markers],
            semaphores=[marker.semaphore for marker in markers],
            at_return=at_return,
        )

    def cpus_not_sampled(self) -> int:
        """CPUs that have no samples any more; to be asked each second."""
        return self._object.cpus_not_sampled()

    def _optional(self, name: str, attach: Any) -> None:
        try:
            attach()
            self.attached.append(name)
        except CannotRecord as err:
            self.not_attached.append((name, err.message))

    def add_process(self, pid: int, process: NDArray[Any]) -> None:
        """Tells of a process (`struct python_process`) unless the probes followed it already.

        Raises:
            OSError: They are too many (E2BIG).
        """
        if not self._closed:
            self._maybe[pid % len(self._maybe)] = 1
            with contextlib.suppress(FileExistsError):
                update_map(self._processes, _u32(pid), process.tobytes(), NOEXIST)

    def set_process(self, pid: int, process: NDArray[Any]) -> None:
        """What is known by now of a process; nothing if it has ended or is another program.

        Looking at it takes tens of ms. What was put back after its end would stay for ever, and
        what it was before an exec is not true of what it is after that.
        """
        if self._closed:
            return
        there = lookup(self._processes, _u32(pid), process.nbytes).view(process.dtype)
        if there["since_ns"] > process["since_ns"]:
            return
        process["since_ns"] = there["since_ns"]
        with contextlib.suppress(FileNotFoundError):
            update_map(self._processes, _u32(pid), process.tobytes(), EXIST)

    @property
    def _processes(self) -> int:
        return self._object.maps["python_processes"].fd

    def renew_stacks(self, pid: int) -> None:
        """From here on each stack of a process is handed over again."""
        if not self._closed:
            self._epochs[pid % len(self._epochs)] += 1

    def counters(self) -> NDArray[np.uint64]:
        """Counter values now; shape (CPUs, counters)."""
        values: NDArray[np.uint64] = self._cpus["counters"][:, : len(self.counter_names)].copy()
        return values

    def detach(self) -> None:
        """Lets nothing more happen; all else stays."""
        uprobes.detach(self._links)
        self._object.detach()

    def close(self) -> None:
        """Detaches everything; counters and rings stay readable."""
        self._closed = True
        uprobes.detach(self._links)
        self._object.close()


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _ring_bytes(name: str, cpus: int) -> int:
    return min(_RINGS[name][1], _RING_BYTES_OF_CPU * sizes.power_of_two(cpus))
