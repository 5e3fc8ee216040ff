"""Reads a pprof profile: stacks with the time they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sltrace.profiles.source import ProfileError, read_bytes

MAX_DEPTH = 1024
"""Frames kept of one stack, the innermost."""
MAX_SAMPLES = 2_000_000
_MAX_INLINED = 64

_UNITS = {"nanoseconds": 1, "microseconds": 1_000, "milliseconds": 1_000_000, "seconds": 10**9}
_UNKNOWN = "[unknown]"


@dataclass(frozen=True)
class ProfileFrame:
    """One function.

    Attributes:
        name: As the profile has it; the address where it has none.
        file: Its source file, or else the binary it is in; empty if unknown.
    """

    name: str
    file: str


@dataclass(frozen=True)
class Profile:
    """Time by stack.

    Attributes:
        where: Path or URL it is from.
        measure: What its time is, as the profile calls it: cpu, delay, wall ...
        start_unix_ns: When it began; 0 if it does not say.
        duration_ns: How long it took; 0 if it does not say.
        frames: Distinct ones.
        stacks: Distinct ones, frame indices, root first.
        ns: Time of each stack.
    """

    where: str
    measure: str
    start_unix_ns: int
    duration_ns: int
    frames: list[ProfileFrame]
    stacks: list[tuple[int, ...]]
    ns: list[int]

    @property
    def total_ns(self) -> int:
        """All of it."""
        return sum(self.ns)


def read_pprof(where: str) -> Profile:
    """Reads a profile whose samples are times.

    Args:
        where: Path or http(s) URL, packed with gzip or not.

    Raises:
        ProfileError: It is not there, not a profile, or counts something other than time.
    """
    from google.protobuf.message import DecodeError

    from sltrace.profiles import profile_pb2 as pb

    message: Any = pb.Profile()  # type: ignore[attr-defined]
    try:
        message.ParseFromString(read_bytes(where))
    except DecodeError:
        message = None
    if message is None or not message.sample_type or not message.string_table:
        raise ProfileError(f"{where} is not a pprof profile", "give a .pb.gz file or its URL")
    if len(message.sample) > MAX_SAMPLES:
        raise ProfileError(f"{where} has {len(message.sample):,} samples", "profile for less long")
    return _Reader(where, message).profile()


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
        table = self.message.string_table
        return str(table[index]) if 0 <= index < len(table) else ""

    def inlined(self, location: Any) -> tuple[int, ...]:
        """Frames of a location, root first: inlined calls make it several."""
        mapping = self.mappings.get(location.mapping_id)
        binary = self.text(mapping.filename) if mapping else ""
        found = []
        for line in reversed(location.line[:_MAX_INLINED]):
            function = self.functions.get(line.function_id)
            if function is not None:
                name = self.text(function.name) or self.text(function.system_name) or _UNKNOWN
                found.append(ProfileFrame(name, self.text(function.filename) or binary))
        if not found:
            at = f"0x{location.address:x}" if location.address else _UNKNOWN
            found.append(ProfileFrame(at, binary))
        return tuple(self.frames.setdefault(f, len(self.frames)) for f in found)

    def time_column(self) -> tuple[int, str, int]:
        """Index of the value to read, what it is called, and its unit in ns."""
        message = self.message
        types = [(self.text(t.type), self.text(t.unit)) for t in message.sample_type]
        timed = [i for i, (_, unit) in enumerate(types) if unit in _UNITS]
        if not timed:
            kinds = ", ".join(f"{name} in {unit}" for name, unit in types)
            raise ProfileError(
                f"{self.where} has no time, only {kinds[:200]}",
                "a CPU, block or mutex profile has",
            )
        preferred = self.text(message.default_sample_type)
        # By the format's own rule the last one is the default.
        index = next((i for i in timed if types[i][0] == preferred), timed[-1])
        return index, types[index][0], _UNITS[types[index][1]]

    def profile(self) -> Profile:
        """All of it, samples with the same stack added up."""
        index, measure, unit = self.time_column()
        sums: dict[tuple[int, ...], int] = {}
        for sample in self.message.sample:
            if index >= len(sample.value) or sample.value[index] <= 0:
                continue
            stack: list[int] = []
            for location in reversed(sample.location_id[:MAX_DEPTH]):
                stack.extend(self.locations.get(location, ()))
            key = tuple(stack[-MAX_DEPTH:])
            sums[key] = sums.get(key, 0) + sample.value[index] * unit
        return Profile(
            where=self.where,
            measure=measure,
            start_unix_ns=max(0, self.message.time_nanos),
            duration_ns=max(0, self.message.duration_nanos),
            frames=list(self.frames),
            stacks=list(sums),
            ns=list(sums.values()),
        )
