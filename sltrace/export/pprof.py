"""A pprof profile of the waits: `go tool pprof`, Pyroscope and Grafana read it.

Addresses of user code are offsets into their file, so that processes that run the same file
share its locations.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any, BinaryIO

from sltrace import __version__
from sltrace.analysis.flame import REST
from sltrace.analysis.frames import Frame
from sltrace.analysis.losses import losses
from sltrace.analysis.meta import clock_ns
from sltrace.analysis.selection import EVERYTHING, Selection, Value
from sltrace.analysis.stacks import (
    GroupedStacks,
    StackGroup,
    Which,
    count_groups,
    grouped_stacks,
)
from sltrace.export.sink import Written
from sltrace.export.text import printable
from sltrace.profiles import profile_pb2 as pb
from sltrace.trace.reader import Trace

MAX_SAMPLES = 100_000
"""Samples of one profile at most: 50,000 of 25 frames are 5 MB and load in 0.6 s (measured)."""

_BASE = ("kind", "cgroup", "comm")
_LABELS = (
    (*_BASE, "cpu", "trace_id", "span_id"),
    (*_BASE, "trace_id", "span_id"),
    (*_BASE, "cpu"),
    _BASE,
)
"""Labels of the samples: the first of these that makes no more samples than allowed."""


def write_pprof(
    trace: Trace,
    out: BinaryIO,
    selection: Selection = EVERYTHING,
    *,
    which: Which = "victim",
    max_samples: int = MAX_SAMPLES,
) -> Written:
    """Writes a gzipped profile; its totals are those of the selected waits.

    Args:
        trace: Where from.
        out: Where to.
        selection: Waits to write.
        which: The victim's stack or the waker's.
        max_samples: Never more samples than this, at least 2: labels are dropped first, then
            the stacks with the least time become one sample.
    """
    labels = next(
        (b for b in _LABELS if count_groups(trace, b, selection, which) < max_samples), _BASE
    )
    # One sample is left for the rest.
    grouped = grouped_stacks(trace, labels, selection, which, limit=max_samples - 1)
    notes = []
    if dropped := [name for name in _LABELS[0] if name not in labels]:
        notes.append(f"no labels {', '.join(dropped)}: over {max_samples:,} samples with them")
    builder = _Builder(trace, selection, grouped, labels)
    for group in grouped.groups:
        builder.add(group)
    if grouped.rest_groups:
        notes.append(f"{grouped.rest_groups:,} small samples are summed as {REST}")
        builder.add_rest()
    for note in (losses(trace, selection).sentence, *notes, *trace.notes):
        builder.comment(note)
    with gzip.GzipFile("", "wb", fileobj=out, mtime=0) as packed:
        packed.write(builder.profile.SerializeToString())
    return Written(grouped.count, grouped.wait_ns, tuple(notes))


class _Builder:
    """A profile in the making: interns strings, functions, mappings and locations."""

    def __init__(
        self, trace: Trace, selection: Selection, grouped: GroupedStacks, labels: Sequence[str]
    ) -> None:
        # Generated code has no types.
        self.profile: Any = pb.Profile()  # type: ignore[attr-defined]
        self._strings: dict[str, int] = {}
        self._functions: dict[tuple[str, str], int] = {}
        self._mappings: dict[tuple[str, str], int] = {}
        self._locations: dict[tuple[int, int, int, int], int] = {}
        self._grouped = grouped
        self._labels = labels
        self._location_of_frame: dict[int, int] = {}
        self._string("")
        for unit in ("count", "nanoseconds"):
            self.profile.sample_type.add(
                type=self._string("waits" if unit == "count" else "wait"), unit=self._string(unit)
            )
        self.profile.default_sample_type = self._string("wait")
        self._set_time(trace, selection)
        self.comment(f"sltrace {__version__}, host {trace.meta.get('host', 'unknown')}")

    def _set_time(self, trace: Trace, selection: Selection) -> None:
        began, ended = clock_ns(trace, "start_ns"), clock_ns(trace, "end_ns")
        start = max(began, selection.start_ns or 0)
        end = ended if selection.end_ns is None else min(ended, selection.end_ns)
        if unix := clock_ns(trace, "start_unix_ns"):
            self.profile.time_nanos = unix + start - began
        self.profile.duration_nanos = max(0, end - start)

    def comment(self, text: str) -> None:
        """Adds a line of free text."""
        self.profile.comment.append(self._string(text))

    def add(self, group: StackGroup) -> None:
        """Adds one sample."""
        stack = self._grouped.stacks[group.stack].tolist()
        sample = self.profile.sample.add(value=[group.count, group.wait_ns])
        sample.location_id.extend(self._location(i) for i in reversed(stack))
        for name, value in zip(self._labels, group.keys, strict=True):
            self._label(sample, name, value)

    def add_rest(self) -> None:
        """Adds the groups that were only summed as one sample."""
        sample = self.profile.sample.add(value=[self._grouped.rest_count, self._grouped.rest_ns])
        sample.location_id.append(self._location_of(Frame(REST)))

    def _label(self, sample: Any, name: str, value: Value) -> None:
        if isinstance(value, int):
            sample.label.add(key=self._string(name), num=value, num_unit=self._string(name))
        elif value:
            sample.label.add(key=self._string(name), str=self._string(value))

    def _location(self, frame: int) -> int:
        if frame not in self._location_of_frame:
            self._location_of_frame[frame] = self._location_of(self._grouped.frames[frame])
        return self._location_of_frame[frame]

    def _location_of(self, frame: Frame) -> int:
        mapping = self._mapping(frame)
        address = frame.address if frame.file_offset is None else frame.file_offset
        function = self._function(frame)
        key = (mapping, address, function, frame.line)
        if key not in self._locations:
            self._locations[key] = number = len(self._locations) + 1
            line = {"function_id": function, "line": frame.line}
            self.profile.location.add(id=number, mapping_id=mapping, address=address, line=[line])
            if mapping:
                known = self.profile.mapping[mapping - 1]
                known.memory_limit = max(known.memory_limit, min(address + 1, 2**64 - 1))
        return self._locations[key]

    def _function(self, frame: Frame) -> int:
        key = (frame.name, frame.source or frame.path or frame.module)
        if key not in self._functions:
            self._functions[key] = number = len(self._functions) + 1
            # From a system's name pprof makes one of C++: nothing of Python's `<module>`.
            system = frame.name if frame.language == "native" else ""
            self.profile.function.add(
                id=number,
                name=self._string(frame.name),
                system_name=self._string(system),
                filename=self._string(key[1]),
            )
        return self._functions[key]

    def _mapping(self, frame: Frame) -> int:
        key = (frame.path or frame.module, frame.build_id)
        if not key[0]:
            return 0
        if key not in self._mappings:
            self._mappings[key] = number = len(self._mappings) + 1
            self.profile.mapping.add(
                id=number,
                filename=self._string(key[0]),
                build_id=self._string(frame.build_id),
                has_functions=True,
            )
        return self._mappings[key]

    def _string(self, text: str) -> int:
        text = printable(text)
        if text not in self._strings:
            self._strings[text] = len(self._strings)
            self.profile.string_table.append(text)
        return self._strings[text]
