"""How often the programs ran for each Go process, and what that cost it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import libbpf, overhead
from sltrace.capture.btf import Btf
from sltrace.capture.maps import lookup, update_map

COUNTED = {
    "go_record_hit": ("go_hits", "GO_AT_RECORD", True),
    "go_tracked_hit": ("go_tracked_hits", "GO_AT_TRACKED", True),
    "go_every_hit": ("go_every_hits", "GO_AT_EVERY", True),
    "go_span_begin_hit": ("go_spans", "GO_AT_SPAN_BEGIN", True),
    "go_span_end_hit": ("go_span_ends", "GO_AT_SPAN_END", True),
    "go_switch": ("go_switches", "GO_AT_SWITCH", False),
}
"""Of each program what its runs are called in a trace and in the probes, and whether one costs a
breakpoint too."""
_MEASURED_S, _PATIENCE_S = 0.5, 3.0
"""How long programs are measured, and waited for, as that costs every program of the machine."""
_ESTIMATED_NS, _MEASURED_RUNS = 600.0, 100
"""What a program takes that did not run so often while it was measured: 200 to 900 here."""


class Runs:
    """The runs of one loaded object's programs.

    Args:
        loaded: The object.
        layouts: Its BTF.
        hit_ns: What a hit costs beside its program.
        measured: Whether to measure what programs take: runs are expected at once.
    """

    def __init__(
        self, loaded: libbpf.Object, layouts: Btf, hit_ns: float, *, measured: bool
    ) -> None:
        self.hit_ns = hit_ns
        self.program_ns: dict[str, float] = {}
        self._programs = loaded.programs
        self._table = loaded.maps["go_runs"].fd
        numbers = layouts.enumerators("go_program")
        self._width = len(numbers) - 1
        self._numbers = {name: numbers[at] for name, (_, at, _) in COUNTED.items()}
        self._cpus = libbpf.possible_cpus()
        self._give_up_at = time.monotonic() + _PATIENCE_S + _MEASURED_S
        self._statistics = -1
        if measured:
            self._statistics = int(libbpf.library().bpf_enable_stats(overhead.STATS_RUN_TIME))

    def of(self, slots: Iterable[int]) -> dict[str, int]:
        """How often each program ran for the processes in these places of the tables."""
        total = np.zeros(self._width, np.uint64)
        for slot in slots:
            total += self._read(slot)
        return {name: int(total[number]) for name, number in self._numbers.items()}

    def forget(self, slot: int) -> None:
        """Begins anew for who is next in this place."""
        zeros = bytes(8 * self._width * self._cpus)
        update_map(self._table, slot.to_bytes(4, "little"), zeros)

    def _read(self, slot: int) -> NDArray[np.uint64]:
        size = 8 * self._width * self._cpus
        found = lookup(self._table, slot.to_bytes(4, "little"), size)
        runs: NDArray[np.uint64] = found.view(np.uint64).reshape(-1, self._width).sum(0)
        return runs

    def cost_ns(self, runs: Mapping[str, int]) -> int:
        """What runs of programs cost, estimated: their number times ns per run."""
        return round(
            sum(
                number * (self.program_ns.get(name, _ESTIMATED_NS) + self.hit_ns * COUNTED[name][2])
                for name, number in runs.items()
            )
        )

    def measure(self, attached_at: float | None) -> None:
        """Takes what each program takes from the services' own first second, once it is over.

        Args:
            attached_at: Since when they run (monotonic, s); None for not yet.
        """
        ready = self._give_up_at if attached_at is None else attached_at + _MEASURED_S
        if self._statistics < 0 or time.monotonic() < ready:
            return
        for name in COUNTED:
            spent, runs, _ = overhead.run_statistics(self._programs[name].fd)
            if runs >= _MEASURED_RUNS:
                self.program_ns[name] = spent / runs
        self.close()

    def close(self) -> None:
        """Measures no more; of a program that was not measured an estimate is assumed."""
        if self._statistics >= 0:
            os.close(self._statistics)
            self._statistics = -1
