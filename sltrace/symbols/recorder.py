"""What a recording does for its symbols: remember mappings while it runs, name addresses after."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.symbols.kernel import KernelSymbols
from sltrace.symbols.mappings import Mapping, MappingRecorder
from sltrace.symbols.resolve import kernel_frames, user_frames
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_PIECE = 1 << 16
"""Rows of frames at once: each is 0.5 kB of memory before it is one."""
_FORK, _EXECS, _EXIT_LAST = 1, (2, 6), 7  # enum task_event_kind in probes/wait_record.h


class SymbolRecorder:
    """Symbols of one recording.

    Args:
        kernel: Kernel stacks are taken. The kernel's symbols are read at once: later this process
            may not be allowed to.
    """

    def __init__(self, kernel: bool) -> None:
        self._kernel = KernelSymbols() if kernel else None
        self._recorder = MappingRecorder()
        self._kernel_addresses: set[int] = set()

    @property
    def refused(self) -> dict[str, int]:
        """What was not kept, so that addresses have no names; as meta.json calls it."""
        return {
            "mapped_files_refused": self._recorder.refused_files,
            "ended_processes_refused": self._recorder.refused_processes,
            "addresses_overwritten": self._recorder.overwritten,
            "perf_maps_missed": self._recorder.perf_maps.missed,
            "perf_maps_cut": self._recorder.perf_maps.cut,
            "perf_maps_refused": self._recorder.perf_maps.refused,
        }

    def observe(self, stacks: NDArray[Any]) -> pa.Table:
        """Takes new stacks (`struct stack_record`); rows of the mappings table."""
        seen = []
        for pid in np.unique(stacks["pid"]).tolist():
            mine = stacks[stacks["pid"] == pid]
            inside = np.arange(mine["addresses"].shape[1]) < mine["depth"][:, None]
            addresses = np.unique(mine["addresses"][inside]).tolist()
            if pid == 0:
                self._kernel_addresses.update(addresses)
                continue
            if self._recorder.has_exited(pid):
                # The number is another process's now, and what is mapped where is not known.
                continue
            seen.append((pid, self._recorder.observe(pid, addresses)))
        return self._rows(seen)

    def look_again(self) -> pa.Table:
        """Looks whether other files are mapped by now; rows of the mappings table."""
        return self._rows(self._recorder.look_again())

    def _rows(self, seen: Iterable[tuple[int, list[Mapping]]]) -> pa.Table:
        import pyarrow as pa

        rows = [
            {
                "pid": pid,
                "start": m.start,
                "end": m.end,
                "offset": m.offset,
                "path": m.path,
                "build_id": self._recorder.build_id(m),
                "seen_ns": time.monotonic_ns(),
            }
            for pid, mappings in seen
            for m in mappings
        ]
        return pa.Table.from_pylist(rows, schema=arrow_schema("mappings"))

    def executed(self, events: NDArray[Any]) -> None:
        """Takes task events: other programs have other files at the same addresses.

        So have processes that get the number of one that has ended.
        """
        for pid in events["pid"][np.isin(events["kind"], _EXECS)].tolist():
            self._recorder.executed(pid)
        born = events[(events["kind"] == _FORK) & (events["tid"] == events["pid"])]
        for pid in born["pid"].tolist():
            if self._recorder.has_exited(pid):
                self._recorder.executed(pid)

    def exited(self, events: NDArray[Any]) -> None:
        """Takes task events: what was made in processes that end is as it will stay."""
        ended = events[events["kind"] == _EXIT_LAST]
        execs = events[np.isin(events["kind"], _EXECS)]
        lasts = dict(zip(execs["pid"].tolist(), execs["ns"].tolist(), strict=True))
        for pid, ns in zip(ended["pid"].tolist(), ended["ns"].tolist(), strict=True):
            # The number may be another process's since, which has become another program.
            if ns > lasts.get(pid, 0):
                self._recorder.exited(pid)

    def finish(self) -> Iterator[tuple[str, pa.Table]]:
        """Names every address seen; rows of the frames table, piece by piece, and of mappings."""
        import pyarrow as pa

        if (rows := self._rows(self._recorder.last_look())).num_rows:
            yield "mappings", rows
        self._recorder.finish()
        frames = user_frames(self._recorder)
        if self._kernel is not None:
            frames = chain(frames, kernel_frames(self._kernel_addresses, self._kernel))
        while piece := list(islice(frames, _PIECE)):
            yield "frames", pa.Table.from_pylist(piece, schema=arrow_schema("frames"))
