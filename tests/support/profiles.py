"""Small pprof profiles made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sltrace.profiles import profile_pb2 as pb


def make_pprof(
    stacks: Mapping[tuple[str, ...], Sequence[int]],
    types: Sequence[tuple[str, str]] = (("samples", "count"), ("cpu", "nanoseconds")),
    *,
    file: str = "",
    start_unix_ns: int = 0,
    duration_ns: int = 0,
) -> bytes:
    """A profile, not packed.

    Args:
        stacks: Function names, root first, to a value for each type.
        types: Types and units of the values.
        file: Source file of all functions.
        start_unix_ns: When it was taken.
        duration_ns: For how long.
    """
    # Generated code has no types.
    profile: Any = pb.Profile()  # type: ignore[attr-defined]
    strings = {"": 0}

    def string(text: str) -> int:
        return strings.setdefault(text, len(strings))

    for name, unit in types:
        profile.sample_type.add(type=string(name), unit=string(unit))
    ids: dict[str, int] = {}
    for stack in stacks:
        for name in stack:
            if name not in ids:
                ids[name] = len(ids) + 1
                profile.function.add(id=ids[name], name=string(name), filename=string(file))
                location = profile.location.add(id=ids[name])
                location.line.add(function_id=ids[name])
    for stack, values in stacks.items():
        profile.sample.add(location_id=[ids[n] for n in reversed(stack)], value=values)
    profile.time_nanos, profile.duration_nanos = start_unix_ns, duration_ns
    profile.string_table.extend(strings)
    return bytes(profile.SerializeToString())
