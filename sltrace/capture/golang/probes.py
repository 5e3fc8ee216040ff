"""The Go object: loaded once for all Go processes of a recording, attached to each."""

from __future__ import annotations

import contextlib
import mmap
import struct
import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import libbpf, uprobes
from sltrace.capture.btf import Btf
from sltrace.capture.golang.attached import Attached, take_out
from sltrace.capture.golang.runs import COUNTED, Runs
from sltrace.capture.maps import EXIST, delete_key, map_keys, sum_over_cpus, update_map
from sltrace.capture.probes import counter_names, object_path
from sltrace.capture.ring import Ring
from sltrace.errors import CannotRecord
from sltrace.target.go.histograms import GC_PAUSES, LATENCIES, STW_HISTOGRAMS
from sltrace.target.go.process import GoProcess

RING_BYTES = {1: 2 << 20, 2: 2 << 20, 3: 8 << 20}
"""By level. Up to 2 the runtime notes one wait in 8."""
STACK_RING_BYTES = 4 << 20
TRACE_KEYS = ("trace_id", "trace id", "otel_traceid")
SPAN_KEYS = ("span_id", "span id")
_SWITCH = ("go_switch", "go_exit", "go_exec")
_SPAN_BEGIN, _SPAN_END = "go_span_begin_hit", "go_span_end_hit"
_RECORD, _TRACKED, _EVERY = "go_record_hit", "go_tracked_hit", "go_every_hit"
_PROBES: dict[int, tuple[tuple[int, str, str], ...]] = {
    0: (),
    1: ((1, _RECORD, "record"),),
    2: ((1, _RECORD, "record"), (2, _TRACKED, "tracked")),
    3: ((1, _RECORD, "record"), (3, _EVERY, "every")),
}
"""By level: the level each probe brings a process to, its program and the name of its place."""
_SPAN_MAPS, _SPAN_KEY = ("go_spans", "go_within"), struct.Struct("<QQ")
_MAX_EDGES = 1 << 16


class GoProbes:
    """The programs and their maps, loaded while all privileges are there; attached at any time.

    Args:
        tags_fd: The map of tags that all objects share.
        level: The highest that a process will be at.
        cgroup_v1: Whether cgroups are those of the v1 cpu tree.
        trace_keys: pprof labels that hold a trace id, most common first.
        measured: Whether to measure what the programs take: runs are expected at once.

    Raises:
        CannotRecord: The kernel refused.
    """

    def __init__(
        self,
        tags_fd: int,
        *,
        level: int,
        cgroup_v1: bool,
        trace_keys: tuple[str, ...],
        measured: bool = True,
    ) -> None:
        path = object_path("go")
        layouts = self._layouts = Btf.of_object(path)
        self._target = layouts.dtype("go_target")
        self._object = libbpf.Object(path)
        self._attached: dict[int, Attached] = {}
        self._past: Counter[str] = Counter()
        self.edges: deque[tuple[int, int, bool]] = deque(maxlen=_MAX_EDGES)
        """When (CLOCK_MONOTONIC) the probes of a process, by pid, were on from then on, or off."""
        self._attached_at: float | None = None
        self._counters_seen: dict[str, int] = {}
        hit = _hit_programs(level)
        self._programs = (*hit, *_SWITCH)
        try:
            maps = self._object.maps
            maps["task_tags"].reuse(tags_fd)
            self._ring_bytes = RING_BYTES[level] if hit else mmap.PAGESIZE
            maps["go_ring"].resize(self._ring_bytes)
            config = _config(layouts.dtype("go_config"), level, trace_keys, cgroup_v1)
            maps[".rodata"].write_initial(layouts.variable_offset(".rodata", "cfg"), config)
            for name, program in self._object.programs.items():
                program.autoload(name in self._programs)
                if name in hit:
                    program.expect_attach(uprobes.attach_type())
            self._object.load()
            self._names = counter_names(layouts, "go_counter")
            self._slots = maps["go_since"].entries
            hit_ns = uprobes.hit_cost_ns(self._object.programs[_RECORD].fd) if level else 0.0
            self.runs = Runs(self._object, layouts, hit_ns, measured=measured)
        except BaseException:
            self.close()
            raise

    @cached_property
    def rings(self) -> tuple[Ring, Ring]:
        """Of records, and of stacks. Mapped when first asked for: they are 4 to 12 MB resident."""
        maps, dtype = self._object.maps, self._layouts.dtype
        return (
            Ring(maps["go_ring"].fd, self._ring_bytes, dtype("go_record")),
            Ring(maps["go_stack_ring"].fd, STACK_RING_BYTES, dtype("go_stack")),
        )

    def attach(self) -> None:
        """Attaches what is not within a process, once: the goroutine of threads switched out.

        Raises:
            CannotRecord: The kernel refused.
        """
        if self._attached_at is not None:
            return
        for name in _SWITCH:
            self._object.attach(name)
        self._attached_at = time.monotonic()

    def add(self, process: GoProcess, level: int, *, switch_stacks: bool) -> tuple[int, str]:
        """Attaches to a process as much as can be.

        Returns:
            The level it is at, and why it is not the one asked for.

        Raises:
            CannotRecord: It has ended, or become another program.
        """
        slot = self._free_slot()
        if slot is None:
            return 0, "the probes have no room for it: too many processes"
        attached = Attached(process, slot)
        self._tell(process, attached.slot, level, switch_stacks)
        if not process.is_alive():
            # Before they were told, so that they did not forget it at its exec.
            delete_key(self._object.maps["go_targets"].fd, process.pid.to_bytes(4, "little"))
            raise _ended()
        self._attached[process.number] = attached
        reached, why = 0, ""
        for at_level, program, name in _PROBES[level]:
            why = self._probe(process, attached, program, name)
            if why:
                break
            reached = at_level
        if reached < level:
            # If it has ended meanwhile, the probes have forgotten it, and will not do so again.
            with contextlib.suppress(FileNotFoundError):
                self._tell(process, attached.slot, reached, switch_stacks, EXIST)
        if reached:
            why = "; ".join(filter(None, (why, self._follow_spans(process, attached))))
            self._turn_on(attached)
        return reached, why

    def _free_slot(self) -> int | None:
        """A place in the tables that no living process has; None where all are taken."""
        free = set(range(self._slots)).difference(self._taken())
        if not free:
            self._clear_up()
            free = set(range(self._slots)).difference(self._taken())
        return min(free, default=None)

    def _taken(self) -> list[int]:
        return [one.slot for one in list(self._attached.values()) if one.runs is None]

    def _clear_up(self) -> None:
        """Takes their places from processes that have ended: the probes have forgotten these."""
        known = map_keys(self._object.maps["go_targets"].fd, 4)
        living = {int.from_bytes(key, "little") for key in known}
        self._let_go([o for o in self._attached.values() if o.pid not in living])

    def end(self, process: GoProcess) -> None:
        """Takes the probes out of one that has ended, or become another program."""
        self._let_go([one for one in self._attached.values() if one.process is process])

    def _let_go(self, probed: Sequence[Attached]) -> None:
        ended = [one for one in probed if one.runs is None]
        self._turn_off(ended)
        take_out(ended)
        self._forget_spans(ended)
        for one in ended:
            one.runs = self.runs.of([one.slot])
            self._past.update(one.runs)
            self.runs.forget(one.slot)

    def forget(self, number: int) -> None:
        """Of a process that `end` was called for nothing but its counts is kept."""
        attached = self._attached.get(number)
        if attached is not None and attached.runs is not None:
            del self._attached[number]

    def _follow_spans(self, process: GoProcess, attached: Attached) -> str:
        """Attaches to where OpenTelemetry's SDK begins and ends spans; why it could not be."""
        for program, name in ((_SPAN_END, "span_end"), (_SPAN_BEGIN, "span_begin")):
            if getattr(process.sites, name) is None and name not in process.sites.why:
                return ""
            attached.follows_spans = True
            if why := self._probe(process, attached, program, name):
                return f"no trace ids from its OpenTelemetry SDK: {why}"
        return ""

    def _probe(self, process: GoProcess, attached: Attached, program: str, name: str) -> str:
        """Attaches one program; why it could not be."""
        address = getattr(process.sites, name)
        offset = None if address is None else process.image.offset_of(address)
        if offset is None:
            return process.sites.why.get(name, "what to probe is not in its file")
        try:
            attached.put(self._object.programs[program].fd, offset)
        except CannotRecord as err:
            return str(err)
        return ""

    def pause(self, numbers: Sequence[int]) -> int:
        """Takes the probes out of processes for a while; the CPU time that took, ns."""
        begin = time.thread_time_ns()
        # One that has ended may be forgotten while this waits for its turn.
        paused = [self._attached[number] for number in numbers if number in self._attached]
        self._turn_off(paused)
        used = take_out(paused)
        self._forget_spans(paused)
        return used + time.thread_time_ns() - begin

    def resume(self, number: int) -> int:
        """Puts them in again; the CPU time that took, ns.

        Raises:
            CannotRecord: The process has ended, or become another program; or the kernel refused.
        """
        begin = time.thread_time_ns()
        attached = self._attached.get(number)
        if attached is None or attached.runs is not None or not attached.process.is_alive():
            raise _ended()
        attached.put_back()
        self._turn_on(attached)
        return time.thread_time_ns() - begin

    def _forget_spans(self, probed: Sequence[Attached]) -> None:
        """Those in flight: the probes believe nothing from before, but they would fill a map."""
        numbers = {one.process.number for one in probed if one.follows_spans}
        for name in _SPAN_MAPS if numbers else ():
            fd = self._object.maps[name].fd
            for key in map_keys(fd, _SPAN_KEY.size):
                # It ends in the number of a process.
                if _SPAN_KEY.unpack(key)[1] in numbers:
                    delete_key(fd, key)

    def _turn_on(self, attached: Attached) -> None:
        since = attached.turn_on(self._object.maps["go_since"].fd)
        self.edges.append((since, attached.pid, True))

    def _turn_off(self, probed: Sequence[Attached]) -> None:
        for one in probed:
            if one.since_ns:
                until = one.turn_off(self._object.maps["go_since"].fd)
                self.edges.append((until, one.pid, False))

    def forget_looks(self) -> None:
        """Tells nothing of the times in which probes were on so far; none is now."""
        self.edges.clear()
        for attached in self._attached.values():
            attached.on_ns = 0

    def looked_ns(self, number: int, now: int) -> int:
        """How long the probes of a process were on until `now` (CLOCK_MONOTONIC), ns."""
        return self._attached[number].looked_ns(now) if number in self._attached else 0

    def _tell(
        self, process: GoProcess, slot: int, level: int, switch_stacks: bool, flags: int = 0
    ) -> None:
        o, known = process.offsets, process.histograms
        target = np.zeros(1, self._target)
        values = {
            "time_to_run": known[LATENCIES],
            "stw": known.get(STW_HISTOGRAMS[0], 0),
            "gc_pauses": known.get(GC_PAUSES, 0),
            "tls": process.variables.tls,
            "labels_are_map": o.labels_are_map,
            "level": level,
            "switch_stacks": switch_stacks,
            "slot": slot,
            "number": process.number,
            "program": process.program,
        }
        for name in ("g_sched_bp", "g_status", "g_goid", "g_waitreason", "g_startpc",
                     "g_lockedm", "g_labels",
                     "m_curg", "m_p", "p_runqhead", "p_runnext"):  # fmt: skip
            values[name] = getattr(o, name)
        for name, value in values.items():
            target[name] = value
        key = process.pid.to_bytes(4, "little")
        update_map(self._object.maps["go_targets"].fd, key, target.tobytes(), flags)

    def cost_ns(self) -> int:
        """What the probes have cost the services so far, estimated."""
        counters = self.counters()
        return self.runs.cost_ns({n: counters.get(c, 0) for n, (c, _, _) in COUNTED.items()})

    def cost_of(self, number: int) -> int:
        """What breakpoints and their programs have cost one process; while they are loaded.

        What is attached to switches is level 0's, and there whether or not anything else is. Of
        one that is forgotten by now it is none.
        """
        attached = self._attached.get(number)
        if attached is None:
            return 0
        runs = attached.runs or self.runs.of([attached.slot])
        return self.runs.cost_ns(
            {name: runs[name] for name, (_, _, is_hit) in COUNTED.items() if is_hit}
        )

    def counters(self) -> dict[str, int]:
        """What was counted so far, by name."""
        if self._object.is_open:
            self.runs.measure(self._attached_at)
            self._counters_seen = self._read_counters()
        return self._counters_seen

    def _read_counters(self) -> dict[str, int]:
        fd = self._object.maps["go_counters"].fd
        cpus = libbpf.possible_cpus()
        runs = self._past + Counter(self.runs.of(self._taken()))
        return {counter: runs[program] for program, (counter, _, _) in COUNTED.items()} | {
            name: sum_over_cpus(fd, i, cpus) for i, name in enumerate(self._names)
        }

    def detach(self) -> None:
        """Takes every probe out; counters and rings stay readable."""
        attached = list(self._attached.values())
        self._turn_off(attached)
        take_out(attached)
        self._object.detach()

    def close(self) -> None:
        """Detaches everything; counters stay as they were last."""
        self.detach()
        if self._object.is_open and hasattr(self, "runs"):
            self.counters()
            self.runs.close()
        self._object.close()


def _ended() -> CannotRecord:
    return CannotRecord("it has ended", "record the process that is there now")


def _hit_programs(level: int) -> tuple[str, ...]:
    """Those that a process at this level, or one below, is probed with."""
    if not level:
        return ()
    return (*(program for _, program, _ in _PROBES[level]), _SPAN_BEGIN, _SPAN_END)


def _config(
    layout: np.dtype[Any], level: int, trace_keys: tuple[str, ...], cgroup_v1: bool
) -> bytes:
    config = np.zeros(1, layout)
    config["level"] = level
    config["cgroup_v1"] = cgroup_v1
    for field, keys in (("trace_keys", trace_keys), ("span_keys", SPAN_KEYS)):
        slots: NDArray[Any] = config[field][0]
        for slot, key in zip(slots, keys, strict=False):
            slot["text"], slot["length"] = key.encode(), len(key.encode())
    return config.tobytes()
