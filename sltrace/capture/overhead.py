"""What recording costs: the probes' time per context switch, measured once, and the recorder's own.

The kernel's BPF run-time statistics cost 25 to 40 ns a program run (measured) and need
CAP_SYS_ADMIN, so they are on only for a short calibration: two threads of this process pass a
byte back and forth on one CPU, each pass a wakeup and a switch. The cost of a recording is then
estimated as switches times nanoseconds per switch. Filters leave these threads out: what a switch
costs that is kept is then known from the first seconds of the recording.
"""

from __future__ import annotations

import ctypes as c
import os
import struct
import threading
import time
from dataclasses import dataclass, replace

from sltrace.capture import libbpf
from sltrace.capture.probes import Probes

_ROUNDS, _ROUNDS_S = 1500, 0.2
"""They take 0.02 s; on a CPU that hundreds want each round may take longer than that alone."""
_ENOUGH = 1000
"""Switches that were kept."""
_LONGEST_S = 5
STATS_RUN_TIME = 0
# struct bpf_prog_info (include/uapi/linux/bpf.h)
_INFO_BYTES = 232
_RUN_TIME, _RUN_COUNT, _MISSES = 192, 200, 208


@dataclass(frozen=True)
class Calibration:
    """Cost of the probes on this machine.

    Attributes:
        ns_per_switch: All programs' time for one context switch and its wakeup; 0 if unknown.
        ns_per_kept: That of a switch that the filters leave in, where it is known apart; else 0.
        at_least: The switches that it is from may have been left out, which is cheaper.
    """

    ns_per_switch: float = 0.0
    ns_per_kept: float = 0.0
    at_least: bool = False

    def cost_ns(self, switches: int, kept: int) -> float:
        """What so many switches cost, of which some were kept."""
        left_out = switches - kept if self.ns_per_kept else switches
        return left_out * self.ns_per_switch + (switches - left_out) * self.ns_per_kept


class FirstSeconds:
    """What the switches cost that filters leave in, from the recording itself.

    Args:
        probes: Attached ones.
    """

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._until = time.monotonic() + _LONGEST_S
        self._stats = int(libbpf.library().bpf_enable_stats(STATS_RUN_TIME))
        self._before = _run_time(probes)

    def measure(self, known: Calibration, switches: int, kept: int) -> Calibration:
        """With what is known by now; once that is enough, or takes too long, as it is.

        Args:
            known: What a switch costs that is left out.
            switches: Of the recording so far.
            kept: Those of them that were kept.
        """
        if self._stats < 0:
            return known
        spent = _run_time(self._probes) - self._before
        enough = kept >= _ENOUGH
        if enough or time.monotonic() > self._until:
            self.close()
        if not enough or not known.ns_per_switch:
            return known
        each = (spent - (switches - kept) * known.ns_per_switch) / kept
        return replace(known, ns_per_kept=max(each, known.ns_per_switch), at_least=False)

    def close(self) -> None:
        """Switches the statistics off."""
        if self._stats >= 0:
            os.close(self._stats)
            self._stats = -1


def calibrate(probes: Probes, *, filtered: bool) -> Calibration:
    """Measures with a load of its own; unknown (0) where the kernel has no run statistics.

    Args:
        probes: Attached ones.
        filtered: They were told to leave some tasks or CPUs out.
    """
    stats = int(libbpf.library().bpf_enable_stats(STATS_RUN_TIME))
    if stats < 0:
        return Calibration()
    try:
        before, counted = _run_time(probes), _switches(probes)
        _ping_pong()
        spent, switches = _run_time(probes) - before, _switches(probes) - counted
    finally:
        os.close(stats)
    return Calibration(spent / switches, at_least=filtered) if switches else Calibration()


def missed_runs(probes: Probes) -> int | None:
    """Program runs the kernel skipped because the program was already running on that CPU; None
    where it refuses to say.
    """
    try:
        return sum(run_statistics(fd)[2] for fd in probes.program_fds())
    except OSError:
        return None


def _switches(probes: Probes) -> int:
    return int(probes.counters()[:, probes.counter_names.index("switches")].sum())


def _run_time(probes: Probes) -> int:
    return sum(run_statistics(fd)[0] for fd in probes.program_fds())


def run_statistics(fd: int) -> tuple[int, int, int]:
    """Run time in ns, runs and skipped runs of a program; zeros of one that is not loaded.

    Raises:
        OSError: The kernel refused.
    """
    if fd < 0:
        return 0, 0, 0
    info = c.create_string_buffer(_INFO_BYTES)
    size = c.c_uint32(_INFO_BYTES)
    if libbpf.library().bpf_obj_get_info_by_fd(fd, info, c.byref(size)):
        number = c.get_errno()
        raise OSError(number, f"BPF program: {os.strerror(number)}")
    run_time, runs, misses = (
        struct.unpack_from("<Q", info, at)[0] for at in (_RUN_TIME, _RUN_COUNT, _MISSES)
    )
    return run_time, runs, misses


def _ping_pong() -> None:
    here, there = os.pipe(), os.pipe()
    allowed = os.sched_getaffinity(0)
    # Where it runs by now: another CPU may be a real-time thread's, and never let it in.
    one = {c.CDLL(None).sched_getcpu()}

    def answer() -> None:
        os.sched_setaffinity(0, one)
        while os.read(here[0], 1) == b".":
            os.write(there[1], b".")

    partner = threading.Thread(target=answer)
    os.sched_setaffinity(0, one)
    try:
        partner.start()
        enough = time.monotonic() + _ROUNDS_S
        for _ in range(_ROUNDS):
            os.write(here[1], b".")
            os.read(there[0], 1)
            if time.monotonic() > enough:
                break
        os.write(here[1], b"!")
        partner.join()
    finally:
        os.sched_setaffinity(0, allowed)
        for fd in (*here, *there):
            os.close(fd)
