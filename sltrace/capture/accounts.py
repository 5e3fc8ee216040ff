"""What a recording counts by the interval: losses, histograms, and what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sltrace.capture import cputimes
from sltrace.capture.histograms import HistogramIntervals
from sltrace.capture.overhead import Calibration, FirstSeconds
from sltrace.capture.probes import Probes
from sltrace.capture.rows import GroupNames
from sltrace.capture.tallies import CounterIntervals

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Status:
    """How the recording goes, for the terminal.

    Attributes:
        seconds: Since it began.
        switches_per_s: Context switches seen, in the last interval.
        waits: Rows written so far.
        lost: Waits that could not be handed over so far.
        missed: Waits not seen whole so far.
        recorder_share: CPUs the recorder uses, in the last interval.
        probe_share: CPUs the probes use, estimated, in the last interval.
        at_least: They use as much at least.
    """

    seconds: float
    switches_per_s: float
    waits: int
    lost: int
    missed: int
    recorder_share: float
    probe_share: float
    at_least: bool


_SINCE_LOADED = ("task_ring_full", "cgroup_ring_full", "not_followed")
"""Counters of what is told of those that were there already, while the probes are attached."""
_AHEAD_NS = 100_000
"""From when it is chosen to when a recording begins: the probes are told in a few microseconds."""
_NEVER = (1 << 64) - 1


class Accounts:
    """Accounts of a recording, which begins when they are made.

    Args:
        probes: Whose counters and histograms are read; what is in them already does not count, but
            for the names and births that it lacks.
        groups: Paths of cgroups.
        calibration: What the probes cost, as far as is known.
    """

    def __init__(self, probes: Probes, groups: GroupNames, calibration: Calibration) -> None:
        self._probes = probes
        self._first_seconds = FirstSeconds(probes) if calibration.at_least else None
        self._calibration = calibration
        self.start_ns = self._interval_start = 0
        while self.start_ns <= time.monotonic_ns():
            # Nothing is added to the histograms after they are read and before it begins.
            probes.count_since(_NEVER)
            self._histograms = HistogramIntervals(groups, probes.slots)
            # Rows begin at `start_ns`, too: as little as can be is between it and these.
            values = probes.counters()
            self.start_ns = self._interval_start = time.monotonic_ns() + _AHEAD_NS
            probes.count_since(self.start_ns)
        values[:, [probes.counter_names.index(name) for name in _SINCE_LOADED]] = 0
        self._counters = CounterIntervals(probes.counter_names, values)
        self._baseline = dict(zip(probes.counter_names, values.sum(axis=0), strict=True))
        self._cpu_times = cputimes.read_cpu_times()
        self._cpu_times_in_all: cputimes.CpuTimes | None = None
        self._last_switches = self._interval_switches = self._interval_ns = self._interval_cpu = 0
        self._last_kept = self._interval_kept = 0
        self._cpu_at_start = self._cpu_at_interval = time.process_time_ns()

    def close_interval(self) -> dict[str, pa.Table]:
        """What was counted since the last call, by the table it is for."""
        start, end = self._interval_start, time.monotonic_ns()
        counters = self._counters.rows(self._probes.counters(), start, end)
        histograms, sums = self._histograms.rows(start, end)
        cpu, switches, kept = time.process_time_ns(), self._counted("switches"), self._kept()
        if self._first_seconds:
            self._calibration = self._first_seconds.measure(self._calibration, switches, kept)
        self._interval_start, self._interval_ns = end, end - start
        self._interval_cpu, self._cpu_at_interval = cpu - self._cpu_at_interval, cpu
        self._interval_switches, self._last_switches = switches - self._last_switches, switches
        self._interval_kept, self._last_kept = kept - self._last_kept, kept
        return {"counters": counters, "histograms": histograms, "histogram_sums": sums}

    def status(self, waits: int, missed: int) -> Status:
        """As of the last interval; there are that many rows of waits and missed so far."""
        switches = self._interval_switches
        probe_ns = self._calibration.cost_ns(switches, self._interval_kept)
        return Status(
            seconds=(time.monotonic_ns() - self.start_ns) / 1e9,
            switches_per_s=switches * 1e9 / self._interval_ns,
            waits=waits,
            lost=self._counted("ring_full") + self._counted("state_lost"),
            missed=missed,
            recorder_share=self._interval_cpu / self._interval_ns,
            probe_share=probe_ns / self._interval_ns,
            at_least=self._calibration.at_least,
        )

    def overhead(self) -> dict[str, Any]:
        """Costs so far, for meta.json."""
        switches = self._counted("switches")
        return {
            "probe_ns": round(self._calibration.cost_ns(switches, self._kept())),
            "probe_ns_per_switch": round(self._calibration.ns_per_switch, 1),
            "probe_ns_per_kept": round(self._calibration.ns_per_kept, 1),
            "probe_ns_at_least": self._calibration.at_least,
            "switches": switches,
            "recorder_cpu_ns": time.process_time_ns() - self._cpu_at_start,
            "wall_ns": time.monotonic_ns() - self.start_ns,
        }

    def cpu_times(self) -> cputimes.CpuTimes:
        """What the machine's CPUs did so far, for meta.json."""
        return self._cpu_times_in_all or cputimes.since(self._cpu_times)

    def end(self) -> None:
        """The recording ends: what CPUs do from here on is no part of it."""
        self._cpu_times_in_all = cputimes.since(self._cpu_times)
        if self._first_seconds:
            self._first_seconds.close()

    def _kept(self) -> int:
        """Switches so far that the filters left in."""
        return self._counted("records") + self._counted("below_min")

    def _counted(self, name: str) -> int:
        return self._counters.total(name) - int(self._baseline[name])
