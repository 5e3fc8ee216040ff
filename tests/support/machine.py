"""The probes' state machine as a shared library (probes/hosttest), and a kernel to drive it.

`Kernel` plays only legal scheduler events and keeps its own books of who waited when, from what
the words mean: it knows nothing of stamps, slots or segments.
"""

from __future__ import annotations

import ctypes as c
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.btf import Btf
from sltrace.capture.histograms import Slots
from sltrace.capture.probes import counter_names, object_path
from tests.support.truewaits import Wait

MAX_CPUS = 8
UNKNOWN_WAIT = 1 << 62
PROBES = Path(__file__).parents[2] / "probes"
SOURCE, BCC_SOURCE = PROBES / "hosttest/machine.c", PROBES / "sched.bcc.c"
BLOCKED, DEAD = 1, 0x80


class TaskStruct(c.Structure):
    """struct task_struct of probes/hosttest/machine.c."""

    _fields_ = (
        ("tid", c.c_uint32),
        ("pid", c.c_uint32),
        ("policy", c.c_uint32),
        ("prio", c.c_int),
        ("static_prio", c.c_uint32),
        ("cpu", c.c_uint32),
        ("cgroup", c.c_uint64),
        ("comm", c.c_uint64 * 2),
        ("exec_ns", c.c_uint64),
        ("switches", c.c_uint64),
        ("kernel_wait_ns", c.c_uint64),
        ("run_delay_ns", c.c_uint64),
        ("quota_group", c.c_uint64),
        ("throttle_clock", c.c_uint64 * MAX_CPUS),
        ("matches", c.c_uint32),
        ("moves_while_matched", c.c_uint32),
        ("moves_queued", c.c_uint32),
        ("on_cpu", c.c_uint32),
    )


@cache
def library(loader: str = "libbpf") -> c.CDLL:
    """The machine with what it remembers under this loader."""
    flags = ["-O1", "-g", "-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover"]
    if loader == "bcc":
        sizes = re.findall(r"#define ((?:SEARCH|TALLY)_\w+)\s+(\d+)", BCC_SOURCE.read_text())
        flags += [f"-D{name}={value}" for name, value in sizes]
    with TemporaryDirectory(prefix="sltrace-machine-") as folder:
        target = Path(folder) / "machine.so"
        subprocess.run(["cc", *flags, "-o", str(target), str(SOURCE)], check=True, timeout=120)
        lib = c.CDLL(str(target))
    lib.host_counter.restype = c.c_uint64
    return lib


@cache
def layouts() -> Btf:
    return Btf.of_object(object_path())


class Machine:
    """The state machine with its tables."""

    def __init__(
        self, room: int = 60000, loader: str = "libbpf", slots_per_cpu: int = 32, **config: int
    ) -> None:
        self._lib = library(loader)
        layout = layouts().dtype("config")
        wanted = np.zeros(1, layout)
        wanted["blocked"] = 1
        wanted["slot_mask"] = slots_per_cpu - 1
        for name, value in config.items():
            wanted[name] = value
        self._lib.host_reset(wanted.tobytes(), room)
        self.slots = Slots(
            self._table("slots", "histogram_slot", slots_per_cpu),
            self._table("owners", "slot_owner", slots_per_cpu),
            slots_per_cpu,
        )

    def queue_lag(self, ns: int) -> None:
        """The run queues' clocks were read so long ago, from now on."""
        self._lib.host_queue_lag(c.c_uint64(ns))

    def count_since(self, ns: int) -> None:
        """Histograms have what ends from then on."""
        self._lib.host_count_since(c.c_uint64(ns))

    def records(self) -> NDArray[Any]:
        out = np.zeros(65536, layouts().dtype("wait_record"))
        n = self._lib.host_records(c.c_void_p(out.ctypes.data))
        return out[:n]

    def counter(self, name: str) -> int:
        which = counter_names(layouts()).index(name)
        return sum(int(self._lib.host_counter(cpu, which)) for cpu in range(MAX_CPUS))

    def histogram(self, kind: int) -> tuple[NDArray[np.int64], int]:
        """Counts by bucket and the sum in ns, over all slots."""
        of_kind = self.slots.counts["kinds"][:, kind]
        return of_kind["count"].astype(np.int64).sum(axis=0), int(of_kind["sum_ns"].sum())

    def _table(self, name: str, of: str, slots_per_cpu: int) -> NDArray[Any]:
        """A table of the machine's, over its own memory."""
        address = getattr(self._lib, f"host_{name}")
        address.restype = c.c_void_p
        dtype = layouts().dtype(of)
        size = MAX_CPUS * slots_per_cpu
        memory = (c.c_uint8 * (size * dtype.itemsize)).from_address(address())
        return np.frombuffer(memoryview(memory), dtype, size)

    def interrupts(self, cpu: int) -> c.c_uint32:
        """What a CPU is in: enum interrupt of probes/context.bpf.h."""
        self._lib.host_interrupts.restype = c.POINTER(c.c_uint32)
        return cast("c.c_uint32", self._lib.host_interrupts(cpu).contents)

    def states_used(self) -> int:
        return int(self._lib.host_states_used())

    def call(self, name: str, now: int, *arguments: object) -> None:
        passed = [c.byref(a) if isinstance(a, TaskStruct) else a for a in arguments]
        getattr(self._lib, name)(c.c_uint64(now), *passed)


@dataclass
class Task:
    struct: TaskStruct
    state: str = "blocked"  # running, queued, blocked, dead
    cpu: int = 0
    why: str = ""
    queued_at: int = 0
    blocked_at: int | None = None
    left_at: int | None = None
    woken_at: int = 0
    waking_at: int = 0
    waker: int = 0
    ran_until: int = 0
    queues: list[tuple[int, int, int]] = field(default_factory=list)
    queue_from: int = 0
    fresh: bool = False
    yielded: bool = False
    moved_asleep: bool = False
    out_cpu: int | None = None
    out_state: int = 0

    @property
    def tid(self) -> int:
        return int(self.struct.tid)


class Kernel:
    """CPUs, queues and tasks. Times only grow; every event is at a time of its own.

    Args:
        machine: Where the events go.
        cpus: How many CPUs.
    """

    def __init__(self, machine: Machine, cpus: int = 2) -> None:
        self.machine = machine
        self.now = 1000
        self.hidden = False
        self.running: list[Task | None] = [None] * cpus
        self.switches = [0] * cpus
        self.runs: list[list[tuple[int, int]]] = [[] for _ in range(cpus)]
        self.tasks: dict[int, Task] = {}
        self.waits: list[Wait] = []
        self.throttles: list[list[tuple[int, int]]] = [[] for _ in range(cpus)]
        self.seen: dict[int, int] = {}
        self.heard: dict[int, int] = {}
        self._idle = [TaskStruct(cpu=cpu, prio=120) for cpu in range(cpus)]

    # ---- what the machine is told ----

    def _tell(self, name: str, *arguments: object) -> None:
        if not self.hidden:
            self.machine.call(name, self.now, *arguments)

    def tick(self, ns: int) -> None:
        """Time passes: whoever runs uses CPU time."""
        self.now += max(ns, 1)

    def _charge(self, task: Task) -> None:
        task.struct.exec_ns += self.now - task.ran_until
        task.ran_until = self.now

    # ---- events ----

    def throttle(self, cpu: int, ns: int) -> None:
        """Time passes in which the CPU quota of everybody queued there is used up."""
        self.throttles[cpu].append((self.now, self.now + ns))
        self.now += ns
        for task in self.tasks.values():
            task.struct.throttle_clock[cpu] += ns

    def fork(self, cpu: int, tid: int, matches: int = 1) -> Task:
        task = Task(TaskStruct(tid=tid, pid=tid, cpu=cpu, prio=125, static_prio=123, quota_group=1))
        task.struct.matches, task.struct.cgroup = matches, 2 * tid + 7
        task.struct.kernel_wait_ns = UNKNOWN_WAIT
        for each, spans in enumerate(self.throttles):
            task.struct.throttle_clock[each] = sum(to - since for since, to in spans)
        self.tasks[tid] = task
        parent = self.running[cpu]
        task.state, task.cpu, task.why, task.fresh = "queued", cpu, "wakeup", True
        task.woken_at = task.waking_at = task.queue_from = self.now
        task.waker = parent.tid if parent else 0
        self._tell("host_new", task.struct, task.waker)
        return task

    def wake(self, task: Task, waker_cpu: int, cpu: int, between: int) -> None:
        self.waking(task, waker_cpu)
        self.tick(between)
        self.enqueue(task, cpu)

    def waking(self, task: Task, waker_cpu: int) -> None:
        waker = self.running[waker_cpu]
        task.waker = waker.tid if waker else 0
        task.waking_at = self.now
        self._tell("host_waking", waker_cpu, task.struct, task.waker, 1 if waker else 3)

    def move_asleep(self, task: Task, cpu: int) -> None:
        """A task that blocked but stays on the queue for a while is moved to another."""
        task.struct.moves_queued = 1
        self._tell("host_migrate", task.struct.cpu, task.struct, cpu)
        task.struct.moves_queued = 0
        task.struct.cpu = cpu
        task.moved_asleep = True

    def enqueue(self, task: Task, cpu: int) -> None:
        if cpu != task.struct.cpu and task.state == "blocked":
            # Where it is to be queued is chosen between the two events of a wakeup.
            self._tell("host_migrate", task.struct.cpu, task.struct, cpu)
        task.struct.cpu = cpu
        if task.state == "blocked":
            task.state, task.cpu, task.why = "queued", cpu, "wakeup"
            task.woken_at = task.queue_from = self.now
        self.wakeup(task)

    def wakeup(self, task: Task) -> None:
        """The event; also of a task that runs or waits already."""
        task.struct.kernel_wait_ns = self.now - task.queue_from
        self._tell("host_wakeup", task.struct)

    def migrate(self, task: Task, cpu: int) -> None:
        task.struct.moves_queued = 1
        self._tell("host_migrate", task.cpu, task.struct, cpu)
        task.struct.moves_queued = 0
        task.queues.append((task.cpu, task.queue_from, self.now))
        task.struct.run_delay_ns += self.now - task.queue_from
        task.cpu = task.struct.cpu = cpu
        task.queue_from = self.now

    def switch(self, cpu: int, to: Task | None, how: str) -> None:
        """`how`: preempt, yield, block or die, of the task that runs; anything for idle.

        `interrupt`: preempted after it had set its state and before it could go to sleep.
        """
        before = self.running[cpu]
        prev = before.struct if before else self._idle[cpu]
        following = to.struct if to else self._idle[cpu]
        self.switches[cpu] += 1
        following.switches = prev.switches = self.switches[cpu]
        state = {"block": BLOCKED, "interrupt": BLOCKED, "die": DEAD}.get(how, 0)
        preempted = how in ("preempt", "interrupt")
        if before:
            self._charge(before)
            self._leave(before, cpu, how, state)
            before.struct.on_cpu = 0
        if to:
            self._arrive(to, cpu)
            to.struct.on_cpu = 1
        self.running[cpu] = to
        self.runs[cpu].append((self.now, to.tid if to else 0))
        told = (int(preempted), prev, following, state) if before else (0, prev, following, 0)
        self._tell("host_switch", cpu, *told)
        if to and to.struct.kernel_wait_ns != UNKNOWN_WAIT:
            to.struct.run_delay_ns += to.struct.kernel_wait_ns
        if not self.hidden:
            self.heard.setdefault(cpu, self.now)
            for task in (before, to):
                if task:
                    self.seen[task.tid] = self.now

    def _leave(self, task: Task, cpu: int, how: str, state: int) -> None:
        task.queues = []
        task.left_at = self.now
        task.out_cpu, task.out_state = cpu, 0 if how == "interrupt" else state
        task.yielded, task.moved_asleep = how == "yield", False
        if how == "block":
            task.state, task.blocked_at = "blocked", self.now
        elif how == "die":
            task.state = "dead"
        else:
            task.state, task.why = "queued", "preempt"
            task.queued_at = task.queue_from = self.now
            task.cpu = cpu

    def _arrive(self, task: Task, cpu: int) -> None:
        # The kernel's own stamp begins anew on each queue.
        task.struct.kernel_wait_ns = self.now - task.queue_from
        start = task.woken_at if task.why == "wakeup" else task.queued_at
        blocked = 0
        if task.why == "wakeup" and task.blocked_at is not None:
            blocked = task.woken_at - task.blocked_at
        queues = [*task.queues, (cpu, task.queue_from, self.now)]
        self.waits.append(
            Wait(
                task.tid,
                task.why,
                end=self.now,
                queued=self.now - start,
                throttled=sum(self.throttled(*queue) for queue in queues),
                blocked=blocked,
                wake=self.now - max(task.waking_at, task.blocked_at or 0),
                waking=task.waking_at,
                waker=task.waker,
                left=task.left_at,
                queues=queues,
                first_run=task.fresh,
                yielded=task.yielded,
                moved_asleep=task.moved_asleep,
                prev_cpu=cpu if task.out_cpu is None else task.out_cpu,
                state=task.out_state,
                cgroup=task.struct.cgroup,
                policy=task.struct.policy,
            )
        )
        task.state, task.cpu, task.ran_until, task.fresh = "running", cpu, self.now, False
        task.struct.cpu = cpu

    def throttled(self, cpu: int, start: int, end: int) -> int:
        """How much of a window the quota was used up on a CPU."""
        spans = ((max(since, start), min(to, end)) for since, to in self.throttles[cpu])
        return sum(max(to - since, 0) for since, to in spans)

    # ---- who ran ----

    def switched_on(self, cpu: int, start: int, end: int) -> int:
        """Switches on a CPU within a window."""
        return sum(start <= begin <= end for begin, _ in self.runs[cpu])

    def ran_on(self, cpu: int, start: int, end: int) -> dict[int, int]:
        """CPU time by tid (0: idle) on a CPU within a window."""
        spent: dict[int, int] = {}
        runs = [*self.runs[cpu], (self.now, -1)]
        for (begin, tid), (until, _) in pairwise(runs):
            overlap = min(until, end) - max(begin, start)
            if overlap > 0:
                spent[tid] = spent.get(tid, 0) + overlap
        return spent
