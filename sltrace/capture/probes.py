"""The loaded probes: rings to drain and tables to read, whichever loader put them there."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import kernel, libbpf, sizes
from sltrace.capture.btf import Btf
from sltrace.capture.histograms import Slots
from sltrace.capture.maps import update_map, view
from sltrace.capture.probeconfig import Targets, config_bytes, fill_filters, want_born
from sltrace.capture.recordring import record_rings
from sltrace.capture.ring import Ring
from sltrace.capture.settings import Settings
from sltrace.errors import CannotRecord

STACK_RING_BYTES = 8 << 20
TASK_RING_BYTES = 4 << 20
CGROUP_RING_BYTES = 1 << 20
"""The last two as in probes/names.bpf.h."""

CORE = ("sched_wakeup", "sched_wakeup_new", "sched_migrate_task")
WAKERS = ("sched_waking",)
SWITCH = ("sched_switch", "sched_switch_before_5_18")
TASK_NAMES = ("sched_process_fork", "sched_process_exec", "sched_process_exit", "task_rename")
CGROUP_NAMES = ("cgroup_mkdir", "cgroup_rmdir", "cgroup_rename")
CONTEXT = (
    "irq_handler_exit",
    "softirq_exit",
    "hrtimer_expire_exit",
    "irq_handler_entry",
    "softirq_entry",
    "hrtimer_expire_entry",
)
"""Ends first: one whose begin is seen and whose end is not would not be over."""
ITERATOR = "tasks_at_start"
_TAGGED, _ON = ".data.tagged", (1).to_bytes(4, "little")
_SINCE = ".data.since"

WITHOUT = {
    **dict.fromkeys(TASK_NAMES, "names of short-lived threads may be missing"),
    **dict.fromkeys(CGROUP_NAMES, "names of short-lived cgroups may be missing"),
    **dict.fromkeys(CONTEXT, "wakes from interrupts are told from tasks' only on an idle CPU"),
    ITERATOR: "waits under way when the recording starts are counted as unstamped",
}


class WaitRing(Protocol):
    """Wait records of one CPU."""

    def fill(self) -> float:
        """Share of the ring that waits to be read, 0 to 1."""

    def drain(self) -> NDArray[Any] | None:
        """Takes all records that are whole; None if there are none."""


class Probes(Protocol):
    """What a loader hands to the session."""

    loader: str
    attached: list[str]
    not_attached: list[tuple[str, str]]
    wait_rings: Sequence[WaitRing]
    stack_ring: Ring
    task_ring: Ring
    cgroup_ring: Ring
    counter_names: list[str]
    slots: Slots

    def counters(self) -> NDArray[np.uint64]:
        """Counter values now; shape (CPUs, counters)."""

    def count_since(self, ns: int) -> None:
        """What ended before (CLOCK_MONOTONIC) is not counted in histograms from here on."""

    def program_fds(self) -> list[int]:
        """File descriptors of the attached programs, for their run-time statistics."""

    def take_tags(self) -> None:
        """Records carry the tags of tasks from here on."""

    def detach(self) -> None:
        """Lets nothing more happen; what was recorded can still be read."""

    def close(self) -> None:
        """Detaches everything and lets go of it."""


def object_path(name: str = "sched") -> Path:
    """A prebuilt object: in the wheel beside the package, in a checkout under probes/build."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package, package.parent):
        built = folder / "probes" / "build" / f"{name}.bpf.o"
        if built.is_file():
            return built
    raise CannotRecord("the probes are not built", "run make probes, or install the wheel")


def counter_names(layouts: Btf, enum: str = "counter") -> list[str]:
    """Names of the counters in the order of their enum, lower case."""
    numbers = layouts.enumerators(enum)
    # The last enumerator is their number.
    return [n.lower() for n in sorted(numbers, key=numbers.__getitem__)][:-1]


def counted(
    cpu_states: NDArray[Any], names: Sequence[str], not_followed: int
) -> NDArray[np.uint64]:
    """Counter values now, with what the filters had no room for before births were followed.

    Args:
        cpu_states: `struct cpu_state` of each.
        names: Of the counters.
        not_followed: How many those were.
    """
    counters: NDArray[np.uint64] = cpu_states["counters"].copy()
    counters[0, names.index("not_followed")] += np.uint64(not_followed)
    return counters


def record_dtype(full: np.dtype[Any], settings: Settings, *, tagged: bool) -> np.dtype[Any]:
    """`struct wait_record`, or its begin: probes/record_tail.h says when it has a tail."""
    if settings.stacks.any or tagged:
        return full
    assert full.fields is not None
    assert full.names is not None
    cut = full.fields["stack_kernel"][1]
    names = [n for n in full.names if full.fields[n][1] < cut]
    return np.dtype(
        {
            "names": names,
            "formats": [full.fields[n][0] for n in names],
            "offsets": [full.fields[n][1] for n in names],
            "itemsize": cut,
        }
    )


def side_rings(
    fds: Mapping[str, int], layouts: Btf, *, stack_bytes: int
) -> tuple[Ring, Ring, Ring]:
    """The rings of stacks, of task events and of cgroup events, which both loaders make alike."""
    return (
        Ring(fds["stack_ring"], stack_bytes, layouts.dtype("stack_record")),
        Ring(fds["task_ring"], TASK_RING_BYTES, layouts.dtype("task_event")),
        Ring(fds["cgroup_ring"], CGROUP_RING_BYTES, layouts.dtype("cgroup_event")),
    )


def slot_tables(fds: Mapping[str, int], layouts: Btf, cpus: int, slots_per_cpu: int) -> Slots:
    """The tables of histograms and of whose they are, which both loaders make alike."""
    slots = cpus * slots_per_cpu
    return Slots(
        view(fds["histograms"], slots, layouts.dtype("histogram_slot")),
        view(fds["slot_owners"], slots, layouts.dtype("slot_owner"), writable=True),
        slots_per_cpu,
    )


@dataclass
class LibbpfProbes:
    """The CO-RE object, loaded and attached through libbpf."""

    settings: Settings
    targets: Targets
    loader: str = "libbpf"
    attached: list[str] = field(default_factory=list)
    not_attached: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = object_path()
        layouts = Btf.of_object(path)
        self._object = libbpf.Object(path)
        try:
            self._load(layouts)
            self._attach()
        except BaseException:
            self._object.close()
            raise

    def _load(self, layouts: Btf) -> None:
        cpus = libbpf.possible_cpus()
        slots_per_cpu = sizes.histogram_slots(cpus)
        tasks = sizes.task_slots()
        self._record = layouts.dtype("wait_record")
        # Of histograms only what was not seen whole is handed over.
        wanted = 1 if self.settings.histogram_only else self.settings.ring_bytes
        records = sizes.ring_records(cpus, self._record.itemsize, wanted)
        stack_ring_bytes = STACK_RING_BYTES if self.settings.stacks.any else mmap.PAGESIZE
        maps = self._object.maps
        for name, entries in {
            "cpu_table": cpus,
            "task_table": tasks,
            "histograms": cpus * slots_per_cpu,
            "slot_owners": cpus * slots_per_cpu,
            "ring_positions": cpus,
            "wait_records": cpus * records,
            "wanted_cpus": cpus,
            "stack_ring": stack_ring_bytes,
        }.items():
            maps[name].resize(entries)
        config = config_bytes(
            layouts.dtype("config"),
            self.settings,
            self.targets,
            task_mask=tasks - 1,
            slot_mask=slots_per_cpu - 1,
            ring_mask=records - 1,
        )
        maps[".rodata"].write_initial(layouts.variable_offset(".rodata", "cfg"), config)
        if self.targets.tags_fd >= 0:
            maps["task_tags"].reuse(self.targets.tags_fd)
        if self.targets.tagged:
            maps[_TAGGED].write_initial(0, _ON)
        self._choose_programs()
        self._object.load()
        fds = self._tables()
        self._record_rings = record_rings(
            fds["wait_records"],
            fds["ring_positions"],
            cpus=cpus,
            size=records,
            record=self._record,
            position=layouts.dtype("ring_position"),
            dtype=record_dtype(self._record, self.settings, tagged=self.targets.tagged),
        )
        self.wait_rings: Sequence[WaitRing] = self._record_rings
        self.stack_ring, self.task_ring, self.cgroup_ring = side_rings(
            fds, layouts, stack_bytes=stack_ring_bytes
        )
        self._cpu_states = view(fds["cpu_table"], cpus, layouts.dtype("cpu_state"))
        self.slots = slot_tables(fds, layouts, cpus, slots_per_cpu)
        self.counter_names = counter_names(layouts)
        fill_filters(fds, cpus, settings=self.settings, targets=self.targets)

    def _choose_programs(self) -> None:
        arguments = kernel.tracepoint_arguments("sched_switch")
        if arguments not in (3, 4):
            raise CannotRecord(
                f"this kernel's sched_switch has {arguments} arguments, 3 or 4 are known",
                "report the kernel version; --loader bcc may work",
            )
        unused = SWITCH[0] if arguments == 3 else SWITCH[1]
        for name in SWITCH:
            self._object.programs[name].autoload(name != unused)
        self._switch = SWITCH[1] if unused == SWITCH[0] else SWITCH[0]

    def _attach(self) -> None:
        # Names first, so that nobody is born unnamed; the switch last, when wakeups are seen.
        for name in (*TASK_NAMES, *CGROUP_NAMES, *self._of_records(CONTEXT)):
            try:
                self._object.attach(name)
                self.attached.append(name)
            except CannotRecord as err:
                self.not_attached.append((name, f"{err.message}: {WITHOUT[name]}"))
        self._not_followed = want_born(self._tables(), settings=self.settings, targets=self.targets)
        for name in (*self._of_records(WAKERS), *CORE, self._switch):
            self._object.attach(name)
            self.attached.append(name)
        try:
            self._object.programs[ITERATOR].run_iterator()
        except CannotRecord as err:
            self.not_attached.append((ITERATOR, f"{err.message}: {WITHOUT[ITERATOR]}"))

    def _tables(self) -> dict[str, int]:
        return {name: table.fd for name, table in self._object.maps.items()}

    def _of_records(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Programs that only records need: histograms do not say who woke whom."""
        return () if self.settings.histogram_only else names

    def counters(self) -> NDArray[np.uint64]:
        """Counter values now; shape (CPUs, counters)."""
        return counted(self._cpu_states, self.counter_names, self._not_followed)

    def count_since(self, ns: int) -> None:
        """What ended before (CLOCK_MONOTONIC) is not counted in histograms from here on."""
        update_map(self._object.maps[_SINCE].fd, bytes(4), ns.to_bytes(8, "little"))

    def program_fds(self) -> list[int]:
        """File descriptors of the attached programs, for their run-time statistics."""
        return [self._object.programs[name].fd for name in self.attached]

    def take_tags(self) -> None:
        """Records carry the tags of tasks from here on."""
        for ring in self._record_rings:
            ring.hand_over(self._record)
        update_map(self._object.maps[_TAGGED].fd, bytes(4), _ON)

    def detach(self) -> None:
        """Lets nothing more happen; what was recorded can still be read."""
        self._object.detach()

    def close(self) -> None:
        """Detaches everything and lets go of it."""
        self._object.close()
