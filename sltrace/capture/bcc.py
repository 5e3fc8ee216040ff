"""The same probes through BCC: for kernels with headers and no BTF, and as a second opinion.

BCC only compiles and loads (in a process of its own, see bcc_child); maps are made here, so
that rings, counters and histograms are read exactly as with libbpf.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import bcc_compiler, kernel, libbpf, maps, sizes
from sltrace.capture.btf import Btf
from sltrace.capture.kernel_offsets import kernel_offsets
from sltrace.capture.probeconfig import FILTERS, Targets, config_bytes, fill_filters, want_born
from sltrace.capture.probes import (
    CGROUP_NAMES,
    CGROUP_RING_BYTES,
    CONTEXT,
    CORE,
    ITERATOR,
    STACK_RING_BYTES,
    TASK_NAMES,
    TASK_RING_BYTES,
    WAKERS,
    WITHOUT,
    WaitRing,
    counted,
    counter_names,
    object_path,
    record_dtype,
    side_rings,
    slot_tables,
)
from sltrace.capture.ring import Ring
from sltrace.capture.settings import Settings
from sltrace.errors import CannotRecord

_SWITCH = "sched_switch"
_QUOTA = "cpu_quota"
_SEEN_STACKS = 1 << 16  # probes/stacks.bpf.h


@dataclass
class BccProbes:
    """The probes, compiled on this machine by BCC and attached to raw tracepoints.

    Args:
        settings: What to record.
        targets: The filters in the kernel's terms.

    Raises:
        CannotRecord: No BCC, nothing to take the kernel's layout from, or the kernel refused.
        TargetError: A CPU that is not there.
    """

    settings: Settings
    targets: Targets
    loader: str = "bcc"
    attached: list[str] = field(default_factory=list)
    not_attached: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._maps: dict[str, int] = {}
        self._programs: dict[str, int] = {}
        self._links: list[int] = []
        self._rings: list[int] = []
        layouts = Btf.of_object(object_path())
        from_btf = kernel_offsets()
        offsets = from_btf or bcc_compiler.offsets_from_headers()
        try:
            self._make_maps(layouts)
            fill_filters(self._maps, self._cpus, settings=self.settings, targets=self.targets)
            failed = self._compile(layouts, offsets, _switch_carries_state(bool(from_btf)))
            self._attach(failed)
        except BaseException:
            self.close()
            raise
        self.not_attached.append(
            (ITERATOR, f"BCC's raw tracepoints have no task iterator: {WITHOUT[ITERATOR]}")
        )
        if "cfs_rq_rq" not in offsets:
            self.not_attached.append(
                (
                    _QUOTA,
                    "the run queue's layout is in no kernel header: throttled waits are counted "
                    "as run-queue waits",
                )
            )

    def _make_maps(self, layouts: Btf) -> None:
        cpus = libbpf.possible_cpus()
        cpu_state = layouts.dtype("cpu_state")
        slot, owner = layouts.dtype("histogram_slot"), layouts.dtype("slot_owner")
        stack = layouts.dtype("stack_record")
        # struct task_entry in probes/tables.bcc.h: one word more
        task = layouts.dtype("task_state").itemsize + 8
        slots_per_cpu = sizes.histogram_slots(cpus)
        slots = cpus * slots_per_cpu
        ring_bytes = sizes.ring_bytes(cpus, self.settings.ring_bytes)
        tables = self._maps
        for name, kind, key, value, entries, flags in (
            ("tasks", maps.HASH, 4, task, sizes.task_slots(), 0),
            ("new_task", maps.ARRAY, 4, task, 1, 0),
            ("cpu_table", maps.ARRAY, 4, cpu_state.itemsize, cpus, maps.MMAPABLE),
            ("histograms", maps.ARRAY, 4, slot.itemsize, slots, maps.MMAPABLE),
            ("slot_owners", maps.ARRAY, 4, owner.itemsize, slots, maps.MMAPABLE),
            ("since_ns", maps.ARRAY, 4, 8, 1, 0),
            ("switch_counts", maps.ARRAY, 4, 16, cpus, 0),
            *((name, maps.HASH, f.key, 1, f.entries, 0) for name, f in FILTERS.items()),
            ("wanted_cpus", maps.ARRAY, 4, 1, cpus, 0),
            ("seen_stacks", maps.ARRAY, 4, 8, _SEEN_STACKS, 0),
            ("stack_scratch", maps.PERCPU_ARRAY, 4, stack.itemsize, 1, 0),
            ("stack_ring", maps.RING, 0, 0, STACK_RING_BYTES, 0),
            ("task_ring", maps.RING, 0, 0, TASK_RING_BYTES, 0),
            ("cgroup_ring", maps.RING, 0, 0, CGROUP_RING_BYTES, 0),
        ):
            tables[name] = maps.create_map(name, kind, key, value, entries, flags)

        waits = record_dtype(layouts.dtype("wait_record"), self.settings, tagged=False)
        self._rings = [
            maps.create_map("wait_ring", maps.RING, 0, 0, ring_bytes) for _ in range(cpus)
        ]
        tables["wait_rings"] = maps.create_map(
            "wait_rings", maps.ARRAY_OF_MAPS, 4, 4, cpus, inner=self._rings[0]
        )
        for cpu, fd in enumerate(self._rings):
            maps.update_map(tables["wait_rings"], _u32(cpu), _u32(fd))
        self.wait_rings: Sequence[WaitRing] = [Ring(fd, ring_bytes, waits) for fd in self._rings]
        self.stack_ring, self.task_ring, self.cgroup_ring = side_rings(
            tables, layouts, stack_bytes=STACK_RING_BYTES
        )
        self._cpu_states = maps.view(tables["cpu_table"], cpus, cpu_state)
        self.slots = slot_tables(tables, layouts, cpus, slots_per_cpu)
        self.counter_names = counter_names(layouts)
        self._cpus = cpus

    def _compile(
        self, layouts: Btf, offsets: dict[str, int], switch_carries_state: bool
    ) -> dict[str, str]:
        layout = layouts.dtype("config")
        (config,) = np.frombuffer(
            config_bytes(layout, self.settings, self.targets, slot_mask=self.slots.per_cpu - 1),
            layout,
        )
        defines = {f"CFG_{name}": f"{int(config[name])}ULL" for name in layout.names or ()}
        defines |= {f"FD_{name.upper()}": str(fd) for name, fd in self._maps.items()}
        defines |= {f"OFFSET_{name}": str(offset) for name, offset in offsets.items()}
        if switch_carries_state:
            defines["SWITCH_CARRIES_STATE"] = "1"
        self._programs, failed = bcc_compiler.compile_programs(
            bcc_compiler.source_path(),
            [f"-D{name}={value}" for name, value in defines.items()],
            (*TASK_NAMES, *CGROUP_NAMES, *CONTEXT, *WAKERS, *CORE, _SWITCH),
            tuple(self._maps.values()),
        )
        return failed

    def _attach(self, failed: dict[str, str]) -> None:
        # Names first, so that nobody is born unnamed; the switch last, when wakeups are seen.
        self._attach_each((*TASK_NAMES, *CGROUP_NAMES, *CONTEXT), failed)
        self._not_followed = want_born(self._maps, settings=self.settings, targets=self.targets)
        self._attach_each((*WAKERS, *CORE, _SWITCH), failed)

    def _attach_each(self, names: Sequence[str], failed: dict[str, str]) -> None:
        for name in names:
            try:
                if name in failed:
                    raise CannotRecord(failed[name], libbpf.ASK_DOCTOR)
                self._links.append(maps.open_raw_tracepoint(name, self._programs[name]))
                self.attached.append(name)
            except CannotRecord as err:
                if name not in WITHOUT:
                    raise
                self.not_attached.append((name, f"{err.message}: {WITHOUT[name]}"))

    def counters(self) -> NDArray[np.uint64]:
        """Counter values now; shape (CPUs, counters)."""
        return counted(self._cpu_states, self.counter_names, self._not_followed)

    def count_since(self, ns: int) -> None:
        """What ended before (CLOCK_MONOTONIC) is not counted in histograms from here on."""
        maps.update_map(self._maps["since_ns"], _u32(0), ns.to_bytes(8, "little"))

    def program_fds(self) -> list[int]:
        """File descriptors of the attached programs, for their run-time statistics."""
        return [self._programs[name] for name in self.attached]

    def take_tags(self) -> None:
        """Never asked for: runtimes are looked into with the other loader only."""

    def detach(self) -> None:
        """Lets nothing more happen; what was recorded can still be read."""
        while self._links:
            os.close(self._links.pop())

    def close(self) -> None:
        """Detaches everything."""
        self.detach()
        for fd in (*self._programs.values(), *self._maps.values(), *self._rings):
            os.close(fd)
        self._programs.clear()
        self._maps.clear()
        self._rings.clear()


def _switch_carries_state(btf: bool) -> bool:
    """Whether sched_switch hands over the task's state (5.18, fa2c3254d7cf)."""
    if btf:
        return kernel.tracepoint_arguments(_SWITCH) == 4
    return kernel.version() >= (5, 18)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
