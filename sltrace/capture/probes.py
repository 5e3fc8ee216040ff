"""The loaded probes: rings to drain and tables to read, whichever loader put them there."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import kernel, libbpf, sizes
from sltrace.capture.btf import Btf
from sltrace.capture.ring import Ring
from sltrace.capture.settings import Settings
from sltrace.errors import CannotRecord, TargetError

STACK_RING_BYTES = 8 << 20
TASK_RING_BYTES = 4 << 20
CGROUP_RING_BYTES = 1 << 20

_CORE = ("sched_waking", "sched_wakeup", "sched_wakeup_new", "sched_migrate_task")
_SWITCH = ("sched_switch", "sched_switch_before_5_18")
_TASK_NAMES = ("sched_process_fork", "sched_process_exec", "sched_process_exit", "task_rename")
_CGROUP_NAMES = ("cgroup_mkdir", "cgroup_rmdir", "cgroup_rename")
_CONTEXT = (
    "irq_handler_entry",
    "irq_handler_exit",
    "softirq_entry",
    "softirq_exit",
    "hrtimer_expire_entry",
    "hrtimer_expire_exit",
)
_ITERATOR = "tasks_at_start"

_WITHOUT = {
    **dict.fromkeys(_TASK_NAMES, "names of short-lived threads may be missing"),
    **dict.fromkeys(_CGROUP_NAMES, "names of short-lived cgroups may be missing"),
    **dict.fromkeys(_CONTEXT, "wakes from interrupts are told from tasks' only on an idle CPU"),
    _ITERATOR: "waits under way when the recording starts are counted as unstamped",
}


class Probes(Protocol):
    """What a loader hands to the session."""

    loader: str
    attached: list[str]
    not_attached: list[tuple[str, str]]
    wait_rings: list[Ring]
    stack_ring: Ring | None
    task_ring: Ring | None
    cgroup_ring: Ring | None
    counter_names: list[str]

    def counters(self) -> NDArray[np.uint64]:
        """Counter values now; shape (CPUs, counters)."""

    def histogram_slots(self) -> NDArray[Any]:
        """The histogram slots in use, the shared ones of each CPU first: a view, not a copy."""

    def program_fds(self) -> list[int]:
        """File descriptors of the attached programs, for their run-time statistics."""

    def want_pid(self, pid: int) -> None:
        """Adds a process to the pid filter."""

    def close(self) -> None:
        """Detaches everything."""


@dataclass(frozen=True)
class Targets:
    """The filters in the kernel's terms.

    Attributes:
        cgroup_ids: Every cgroup wanted, with those below.
        hierarchy_id: cgroup tree the ids are from, as in /proc/cgroups; 0 for v2.
        cgroup_v1: Whether that tree is a v1 one.
        start_ns: When the recording begins.
    """

    cgroup_ids: tuple[int, ...] = ()
    hierarchy_id: int = 0
    cgroup_v1: bool = False
    start_ns: int = 0


def object_path() -> Path:
    """The prebuilt probes: in the wheel beside the package, in a checkout under probes/build."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "probes", package.parent / "probes" / "build"):
        if (candidate / "sched.bpf.o").is_file():
            return candidate / "sched.bpf.o"
    raise CannotRecord("the probes are not built", "run make probes, or install the wheel")


def config_bytes(layout: np.dtype[Any], settings: Settings, targets: Targets, **sizes_: int) -> bytes:
    """`struct config` of probes/wait_record.h for these settings."""
    config = np.zeros(1, layout)
    stacks = settings.stacks
    values: dict[str, int] = {
        "start_ns": targets.start_ns,
        "min_latency_ns": settings.min_latency_ns,
        "stack_min_ns": stacks.min_ns,
        # Counted in windows of 10 ms; a cap below 100/s still allows one a window.
        "stack_rate": max(1, stacks.rate_per_cpu // 100) if stacks.rate_per_cpu else 0,
        "policies": sum(1 << p for p in settings.filters.policies),
        "filter_pids": bool(settings.filters.pids),
        "filter_cgroups": bool(settings.filters.cgroups),
        "filter_comms": bool(settings.filters.comms),
        "filter_cpus": bool(settings.filters.cpus),
        "histogram_only": settings.histogram_only,
        "stack_kernel": stacks.kernel,
        "stack_user": stacks.user,
        "stack_waker": stacks.waker,
        "blocked": settings.blocked,
        "cgroup_v1": targets.cgroup_v1,
        "hierarchy_id": targets.hierarchy_id,
        **sizes_,
    }
    for name, value in values.items():
        config[name] = value
    return config.tobytes()


def record_dtype(full: np.dtype[Any], settings: Settings) -> np.dtype[Any]:
    """`struct wait_record` as it is handed over: without its tail if no stacks are taken."""
    if settings.stacks.any:
        return full
    assert full.fields is not None and full.names is not None
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
        slots = sizes.histogram_slots(cpus)
        tasks = sizes.task_slots()
        ring_bytes = self.settings.ring_bytes or sizes.ring_bytes(cpus)
        maps = self._object.maps
        for name, entries in {
            "cpu_table": cpus,
            "task_table": tasks,
            "histograms": slots,
            "slot_index": slots,
            "wait_rings": cpus,
            "wanted_cpus": cpus,
        }.items():
            maps[name].resize(entries)
        config = config_bytes(
            layouts.dtype("config"),
            self.settings,
            self.targets,
            task_mask=tasks - 1,
            n_slots=slots,
        )
        maps[".rodata"].write_initial(layouts.variable_offset(".rodata", "cfg"), config)
        maps[".bss"].write_initial(
            layouts.variable_offset(".bss", "slots_used"), cpus.to_bytes(4, "little")
        )
        self._choose_programs()
        self._object.load()

        waits = record_dtype(layouts.dtype("wait_record"), self.settings)
        self.wait_rings = []
        for cpu in range(0 if self.settings.histogram_only else cpus):
            fd = libbpf.create_ring(ring_bytes)
            maps["wait_rings"].update(cpu.to_bytes(4, "little"), fd.to_bytes(4, "little"))
            self.wait_rings.append(Ring(fd, ring_bytes, waits))
        self.stack_ring: Ring | None = Ring(
            maps["stack_ring"].fd, STACK_RING_BYTES, layouts.dtype("stack_record")
        )
        self.task_ring: Ring | None = Ring(
            maps["task_ring"].fd, TASK_RING_BYTES, layouts.dtype("task_event")
        )
        self.cgroup_ring: Ring | None = Ring(
            maps["cgroup_ring"].fd, CGROUP_RING_BYTES, layouts.dtype("cgroup_event")
        )
        self._cpu_states = _mapped(maps["cpu_table"], layouts.dtype("cpu_state"))
        self._slots = _mapped(maps["histograms"], layouts.dtype("histogram_slot"))
        self._used = cpus
        names = layouts.enumerators("counter")
        self.counter_names = [n.lower() for n in sorted(names, key=names.__getitem__)][:-1]
        self._fill_filters()

    def _choose_programs(self) -> None:
        arguments = kernel.tracepoint_arguments("sched_switch")
        if arguments not in (3, 4):
            raise CannotRecord(
                f"this kernel's sched_switch has {arguments} arguments, 3 or 4 are known",
                "report the kernel version; --loader bcc may work",
            )
        unused = _SWITCH[0] if arguments == 3 else _SWITCH[1]
        for name in _SWITCH:
            self._object.programs[name].autoload(name != unused)
        self._switch = _SWITCH[1] if unused == _SWITCH[0] else _SWITCH[0]

    def _fill_filters(self) -> None:
        filters, maps = self.settings.filters, self._object.maps
        for pid in filters.pids:
            self.want_pid(pid)
        for cgroup in self.targets.cgroup_ids:
            maps["wanted_cgroups"].update(cgroup.to_bytes(8, "little"), b"\1")
        for comm in filters.comms:
            maps["wanted_comms"].update(comm.encode()[:15].ljust(16, b"\0"), b"\1")
        for cpu in filters.cpus:
            if cpu >= maps["wanted_cpus"].entries:
                raise TargetError(
                    f"there is no CPU {cpu}", f"CPUs are 0 to {maps['wanted_cpus'].entries - 1}"
                )
            maps["wanted_cpus"].update(cpu.to_bytes(4, "little"), b"\1")

    def _attach(self) -> None:
        # Names first, so that nobody is born unnamed; the switch last, when wakeups are seen.
        for name in (*_TASK_NAMES, *_CGROUP_NAMES, *_CONTEXT):
            try:
                self._object.attach(name)
                self.attached.append(name)
            except CannotRecord as err:
                self.not_attached.append((name, f"{err.message}: {_WITHOUT[name]}"))
        for name in (*_CORE, self._switch):
            self._object.attach(name)
            self.attached.append(name)
        try:
            self._object.programs[_ITERATOR].run_iterator()
        except CannotRecord as err:
            self.not_attached.append((_ITERATOR, f"{err.message}: {_WITHOUT[_ITERATOR]}"))

    def counters(self) -> NDArray[np.uint64]:
        """Counter values now; shape (CPUs, counters)."""
        counters: NDArray[np.uint64] = self._cpu_states["counters"].copy()
        return counters

    def histogram_slots(self) -> NDArray[Any]:
        """The histogram slots in use, the shared ones of each CPU first: a view, not a copy."""
        while self._used < len(self._slots) and self._slots[self._used]["used"]:
            self._used += 1
        return self._slots[: self._used]

    def program_fds(self) -> list[int]:
        """File descriptors of the attached programs, for their run-time statistics."""
        return [self._object.programs[name].fd for name in self.attached]

    def want_pid(self, pid: int) -> None:
        """Adds a process to the pid filter."""
        self._object.maps["wanted_pids"].update(pid.to_bytes(4, "little"), b"\1")

    def close(self) -> None:
        """Detaches everything."""
        self._object.close()


def _mapped(table: libbpf.Map, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An mmapable array map as a NumPy array over the kernel's own memory."""
    assert dtype.itemsize % 8 == 0, "array elements are padded to 8 bytes"
    size = table.entries * dtype.itemsize
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    view = mmap.mmap(table.fd, pages, mmap.MAP_SHARED, mmap.PROT_READ)
    return np.frombuffer(view, dtype, table.entries)
