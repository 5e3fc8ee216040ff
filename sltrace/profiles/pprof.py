"""Reads a pprof profile: stacks with the time, or the number of things, they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sltrace.model import UNKNOWN_NAME
from sltrace.profiles.labels import Labels, labels_of
from sltrace.profiles.source import ProfileError

MAX_DEPTH = 1024
"""Frames kept of one stack, the innermost."""
MAX_SAMPLES = 2_000_000
_MAX_FRAMES = 32_000_000
"""Of all stacks of a profile, each with every function inlined into it: 256 MB."""
_MAX_INLINED = 64
MOST = 1 << 62
"""Of the values of a profile together: they fit 64 bits."""

_UNITS = {"nanoseconds": 1, "microseconds": 1_000, "milliseconds": 1_000_000, "seconds": 10**9}
_ON_CPU = frozenset({"cpu", "cpu-time", "cpu_time", "on-cpu", "oncpu", "process_cpu", "itimer"})
"""What profilers call time on the CPU; other times (delay, wall) are of waiting, too."""

Unit = Literal["ns", "count"]
Window = tuple[int, int]
"""When something was taken: start on the wall clock (ns; 0 if unknown) and duration (ns)."""


@dataclass(frozen=True)
class ProfileFrame:
    """One function.

    Attributes:
        name: As the profile has it; the address where it has none.
        file: Its source file, or else the binary it is in; empty if unknown.
        language: As in the trace's `frames`; empty where only `file` tells.
    """

    name: str
    file: str
    language: str = ""


@dataclass(frozen=True)
class Profile:
    """Time, or a number of things, by stack.

    Attributes:
        where: Path or URL it is from.
        measure: What its values are, as the profile calls it: cpu, delay, goroutine ...
        unit: What they are in.
        start_unix_ns: When it began; 0 if it does not say.
        duration_ns: How long it took; 0 if it does not say, or was a moment.
        frames: Distinct ones.
        stacks: Frame indices, root first; those with different labels are apart.
        labels: Of each stack.
        values: Of each stack.
        windows: Of each stack when it was taken, where parts were taken at different times; else
            empty: all in the profile's own time.
        complete: Its stacks begin where the trace's do.
        paused_ns: How long of its duration nothing was sampled, as between merged recordings.
        placed: Its times are of the trace's own clock, and go back to where they were on it.
    """

    where: str
    measure: str
    unit: Unit
    start_unix_ns: int
    duration_ns: int
    frames: list[ProfileFrame]
    stacks: list[tuple[int, ...]]
    labels: list[Labels]
    values: list[int]
    windows: list[Window] = field(default_factory=list)
    complete: bool = False
    paused_ns: int = 0
    placed: bool = False

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.values)

    @property
    def on_cpu(self) -> bool:
        """Whether its time is time on the CPU."""
        return self.unit == "ns" and self.measure.lower() in _ON_CPU


def parse_pprof(data: bytes, where: str) -> Profile:
    """Reads a profile of times, or of counts, that is not packed.

    Args:
        data: The message.
        where: What to call it.

    Raises:
        ProfileError: It is not a profile, or of something else, such as memory.
    """
    from google.protobuf.message import DecodeError

    from sltrace.profiles import profile_pb2 as pb

    message: Any = pb.Profile()  # type: ignore[attr-defined]
    try:
        message.ParseFromString(data)
    except DecodeError:
        message = None
    if message is None or not message.sample_type or not message.string_table:
        raise ProfileError(f"{where} is not a pprof profile", "give a .pb.gz file or its URL")
    if len(message.sample) > MAX_SAMPLES:
        raise ProfileError(f"{where} has {len(message.sample):,} samples", "profile for less long")
    return _Reader(where, message).profile()


@dataclass(frozen=True)
class Column:
    """Which value of a sample to read, and what it means."""

    index: int
    measure: str
    unit: Unit
    factor: int = 1


def column_of(message: Any, where: str) -> Column:
    """The time, else the time that samples stand for, else a count of things.

    Args:
        message: A profile.
        where: What to call it.

    Raises:
        ProfileError: It has none of these.
    """
    types = [(_text(message, t.type), _text(message, t.unit)) for t in message.sample_type]
    preferred = _text(message, message.default_sample_type)

    def chosen(indices: list[int]) -> int:
        # By the format's own rule the last one is the default.
        return next((i for i in indices if types[i][0] == preferred), indices[-1])

    if timed := [i for i, (_, unit) in enumerate(types) if unit in _UNITS]:
        index = chosen(timed)
        return Column(index, types[index][0], "ns", _UNITS[types[index][1]])
    counts = [i for i, (_, unit) in enumerate(types) if unit in ("count", "samples")]
    if len(counts) < len(types):
        kinds = ", ".join(f"{name} in {unit}" for name, unit in types)
        raise ProfileError(
            f"{where} has no time, only {kinds[:200]}",
            "a CPU, block, mutex or goroutine profile has what can be shown",
        )
    index = chosen(counts)
    name, period = types[index][0], _text(message, message.period_type.unit)
    if name in ("samples", "cpu") and period in _UNITS and message.period > 0:
        measure = _text(message, message.period_type.type) or name
        return Column(index, measure, "ns", _UNITS[period] * message.period)
    return Column(index, name, "count")


def _text(message: Any, index: int) -> str:
    """A string of its table; empty if there is none."""
    table = message.string_table
    return str(table[index]) if 0 <= index < len(table) else ""


class _Reader:
    """One message: what its numbers mean is looked up, never trusted to be there."""

    def __init__(self, where: str, message: Any) -> None:
        self.where = where
        self.message = message
        self.functions = {f.id: f for f in message.function}
        self.mappings = {m.id: m for m in message.mapping}
        self.frames: dict[ProfileFrame, int] = {}
        self.locations = {loc.id: self.inlined(loc) for loc in message.location}

    def text(self, index: int) -> str:
        """A string of the table; empty if there is none."""
        return _text(self.message, index)

    def inlined(self, location: Any) -> tuple[int, ...]:
        """Frames of a location, root first: inlined calls make it several."""
        mapping = self.mappings.get(location.mapping_id)
        binary = self.text(mapping.filename) if mapping else ""
        found = []
        for line in reversed(location.line[:_MAX_INLINED]):
            function = self.functions.get(line.function_id)
            if function is not None:
                name = self.text(function.name) or self.text(function.system_name) or UNKNOWN_NAME
                found.append(ProfileFrame(name, self.text(function.filename) or binary))
        if not found:
            at = f"0x{location.address:x}" if location.address else UNKNOWN_NAME
            found.append(ProfileFrame(at, binary))
        return tuple(self.frames.setdefault(f, len(self.frames)) for f in found)

    def profile(self) -> Profile:
        """All of it, samples with the same stack and labels added up."""
        column = column_of(self.message, self.where)
        sums: dict[tuple[tuple[int, ...], Labels], int] = {}
        kept = 0
        for sample in self.message.sample:
            if column.index >= len(sample.value) or sample.value[column.index] <= 0:
                continue
            stack: list[int] = []
            for location in reversed(sample.location_id[:MAX_DEPTH]):
                stack.extend(self.locations.get(location, ()))
            key = (tuple(stack[-MAX_DEPTH:]), labels_of(sample.label, self.text))
            if key not in sums:
                kept += len(key[0])
                if kept > _MAX_FRAMES:
                    raise ProfileError(
                        f"{self.where} has more than {_MAX_FRAMES:,} frames in its stacks",
                        "fetch one of a shorter time",
                    )
            sums[key] = sums.get(key, 0) + sample.value[column.index] * column.factor
        if sum(sums.values()) > MOST:
            raise ProfileError(f"{self.where} has more time than a machine can", "fetch it again")
        return Profile(
            where=self.where,
            measure=column.measure,
            unit=column.unit,
            start_unix_ns=max(0, self.message.time_nanos),
            duration_ns=max(0, self.message.duration_nanos),
            frames=list(self.frames),
            stacks=[stack for stack, _ in sums],
            labels=[labels for _, labels in sums],
            values=list(sums.values()),
        )
