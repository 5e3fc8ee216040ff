"""Small pprof profiles made by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sltrace.profiles import profile_pb2 as pb
from sltrace.profiles.pprof import Profile
from sltrace.profiles.stored import read_profiles


def read_pprof(where: str) -> Profile:
    """The only profile of a file or URL."""
    (profile,) = read_profiles(where)
    return profile


def message_of(profile: bytes) -> Any:
    """A profile that is not packed, as protobuf's message: its generated code has no types."""
    return pb.Profile.FromString(profile)  # type: ignore[attr-defined]


def make_pprof(
    stacks: Mapping[tuple[str, ...], Sequence[int]],
    types: Sequence[tuple[str, str]] = (("samples", "count"), ("cpu", "nanoseconds")),
    *,
    labelled: Sequence[tuple[tuple[str, ...], Sequence[int], Mapping[str, str | int]]] = (),
    period: tuple[str, str, int] | None = None,
    file: str = "",
    start_unix_ns: int = 0,
    duration_ns: int = 0,
) -> bytes:
    """A profile, not packed.

    Args:
        stacks: Function names, root first, to a value for each type.
        types: Types and units of the values.
        labelled: More stacks, with their values and labels.
        period: Type, unit and number of what a sample stands for.
        file: Source file of all functions.
        start_unix_ns: When it was taken.
        duration_ns: For how long.
    """
    profile = message_of(b"")
    strings = {"": 0}

    def string(text: str) -> int:
        return strings.setdefault(text, len(strings))

    for name, unit in types:
        profile.sample_type.add(type=string(name), unit=string(unit))
    ids: dict[str, int] = {}
    samples = [*((s, v, {}) for s, v in stacks.items()), *labelled]
    for stack, _, _ in samples:
        for name in stack:
            if name not in ids:
                ids[name] = len(ids) + 1
                profile.function.add(id=ids[name], name=string(name), filename=string(file))
                location = profile.location.add(id=ids[name])
                location.line.add(function_id=ids[name])
    for stack, values, labels in samples:
        sample = profile.sample.add(location_id=[ids[n] for n in reversed(stack)], value=values)
        for key, value in labels.items():
            text = {"str": string(value)} if isinstance(value, str) else {"num": value}
            sample.label.add(key=string(key), **text)
    if period:
        profile.period_type.type, profile.period_type.unit = map(string, period[:2])
        profile.period = period[2]
    profile.time_nanos, profile.duration_nanos = start_unix_ns, duration_ns
    profile.string_table.extend(strings)
    return bytes(profile.SerializeToString())


def by_name(profile: Profile) -> dict[tuple[str, ...], int]:
    """Values by the functions of their stacks."""
    sums: Counter[tuple[str, ...]] = Counter()
    for stack, value in zip(profile.stacks, profile.values, strict=True):
        sums[tuple(profile.frames[f].name for f in stack)] += value
    return sums


def written(folder: Path, data: bytes) -> str:
    """The path of a file that has been given this content."""
    path = folder / "profile.pb"
    path.write_bytes(data)
    return str(path)
