"""The Go object: loaded once for all Go processes of a recording, attached to each."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import libbpf, overhead, uprobes
from sltrace.capture.btf import Btf
from sltrace.capture.probes import counter_names, object_path
from sltrace.capture.ring import Ring
from sltrace.errors import CannotRecord
from sltrace.target.go.histograms import GC_PAUSES, LATENCIES, STW_HISTOGRAMS
from sltrace.target.go.process import GoProcess

RING_BYTES = 8 << 20
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
_COUNTED_BY = {
    _RECORD: ("go_hits", True),
    _TRACKED: ("go_tracked_hits", True),
    _EVERY: ("go_every_hits", True),
    _SPAN_BEGIN: ("go_spans", True),
    _SPAN_END: ("go_span_ends", True),
    "go_switch": ("go_switches", False),
}
"""Counter of each program's runs, and whether one costs a breakpoint too."""
_MEASURED_S, _PATIENCE_S = 0.5, 3.0
"""How long programs are measured, and waited for, as that costs every program of the machine."""
_ESTIMATED_NS = 600.0
"""What a program takes where it was not measured: 200 to 900 here."""


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
        layouts = Btf.of_object(path)
        self._target = layouts.dtype("go_target")
        self._object = libbpf.Object(path)
        self._links: list[int] = []
        self._statistics = -1
        self._attached_at: float | None = None
        self.program_ns: dict[str, float] = {}
        self._counters_seen: dict[str, int] = {}
        hit = _hit_programs(level)
        self._programs = (*hit, *_SWITCH)
        try:
            maps = self._object.maps
            maps["task_tags"].reuse(tags_fd)
            config = _config(layouts.dtype("go_config"), level, trace_keys, cgroup_v1)
            maps[".rodata"].write_initial(layouts.variable_offset(".rodata", "cfg"), config)
            for name, program in self._object.programs.items():
                program.autoload(name in self._programs)
                if name in hit:
                    program.expect_attach(uprobes.attach_type())
            self._object.load()
            self.ring = Ring(maps["go_ring"].fd, RING_BYTES, layouts.dtype("go_record"))
            self.stack_ring = Ring(
                maps["go_stack_ring"].fd, STACK_RING_BYTES, layouts.dtype("go_stack")
            )
            self._names = counter_names(layouts, "go_counter")
            self.hit_ns = uprobes.hit_cost_ns(self._object.programs[_RECORD].fd) if level else 0.0
            self._calibration_hits = self._read_counters().get("go_hits", 0)
            if measured:
                self._statistics = int(libbpf.library().bpf_enable_stats(overhead.STATS_RUN_TIME))
            self._loaded_at = time.monotonic()
        except BaseException:
            self.close()
            raise

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
        """
        self._tell(process, level, switch_stacks)
        reached, why = 0, ""
        for at_level, program, name in _PROBES[level]:
            why = self._probe(process, program, name)
            if why:
                break
            reached = at_level
        if reached < level:
            self._tell(process, reached, switch_stacks)
        if reached:
            why = "; ".join(filter(None, (why, self._follow_spans(process))))
        return reached, why

    def _follow_spans(self, process: GoProcess) -> str:
        """Attaches to where OpenTelemetry's SDK begins and ends spans; why it could not be."""
        for program, name in ((_SPAN_END, "span_end"), (_SPAN_BEGIN, "span_begin")):
            if getattr(process.sites, name) is None and name not in process.sites.why:
                return ""
            if why := self._probe(process, program, name):
                return f"no trace ids from its OpenTelemetry SDK: {why}"
        return ""

    def _probe(self, process: GoProcess, program: str, name: str) -> str:
        """Attaches one program; why it could not be."""
        address = getattr(process.sites, name)
        offset = None if address is None else process.image.offset_of(address)
        if offset is None:
            return process.sites.why.get(name, "what to probe is not in its file")
        path = Path(f"/proc/{process.pid}/exe")
        try:
            fd = self._object.programs[program].fd
            self._links += uprobes.attach(fd, path, [offset], process.pid)
        except CannotRecord as err:
            return str(err)
        return ""

    def _tell(self, process: GoProcess, level: int, switch_stacks: bool) -> None:
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
        }
        for name in ("g_sched_bp", "g_status", "g_goid", "g_waitreason", "g_startpc",
                     "g_lockedm", "g_labels",
                     "m_curg", "m_p", "p_runqhead", "p_runnext"):  # fmt: skip
            values[name] = getattr(o, name)
        for name, value in values.items():
            target[name] = value
        key = process.pid.to_bytes(4, "little")
        self._object.maps["go_targets"].update(key, target.tobytes())

    def _measure_programs(self) -> None:
        """What each program takes, from the services' own first second; then it costs no more."""
        begin = self._loaded_at + _PATIENCE_S if self._attached_at is None else self._attached_at
        if self._statistics < 0 or time.monotonic() < begin + _MEASURED_S:
            return
        for name in self._programs:
            spent, runs, _ = overhead.run_statistics(self._object.programs[name].fd)
            if runs and name in _COUNTED_BY:
                self.program_ns[name] = spent / runs
        os.close(self._statistics)
        self._statistics = -1

    def cost_ns(self) -> int:
        """What the probes have cost the services so far, estimated: runs times ns per run."""
        counters = self.counters()
        return round(
            sum(
                counters.get(counter, 0)
                * (self.program_ns.get(name, _ESTIMATED_NS) + self.hit_ns * is_hit)
                for name, (counter, is_hit) in _COUNTED_BY.items()
            )
        )

    def counters(self) -> dict[str, int]:
        """What was counted so far, by name, without the calibration's own hits."""
        if self._object.is_open:
            self._measure_programs()
            self._counters_seen = self._read_counters()
            self._counters_seen["go_hits"] -= self._calibration_hits
        return self._counters_seen

    def _read_counters(self) -> dict[str, int]:
        fd = self._object.maps["go_counters"].fd
        cpus = libbpf.possible_cpus()
        return {
            name: int(libbpf.lookup(fd, i.to_bytes(4, "little"), 8 * cpus).view(np.uint64).sum())
            for i, name in enumerate(self._names)
        }

    def detach(self) -> None:
        """Takes every probe out; counters and rings stay readable."""
        uprobes.detach(self._links)
        self._object.detach()

    def close(self) -> None:
        """Detaches everything; counters stay as they were last."""
        self.detach()
        if self._statistics >= 0:
            os.close(self._statistics)
            self._statistics = -1
        if self._object.is_open and hasattr(self, "_calibration_hits"):
            self.counters()
        self._object.close()


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
