"""A CPU profile for `go build -pgo` in which the scheduler's own calls are all that is hot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_HOT = (
    ("proc.go", "execute", "casgstatus(", "casgstatus"),
    ("proc.go", "casgstatus", "timeToRun.record(", "(*timeHistogram).record"),
    ("netpoll.go", "netpollblock", "gopark(netpollblockcommit", "gopark"),
    ("chan.go", "chanrecv", "gopark(chanparkcommit", "gopark"),
)
"""File of package runtime, caller, call and callee: what profiles of services have inlined."""


def scheduler_profile(runtime: Path) -> bytes:
    """Of a toolchain, in the format of pprof (google/pprof, proto/profile.proto).

    Args:
        runtime: Sources of its package runtime.
    """
    texts = ["", "samples", "count"]
    found = b""
    for number, (file, caller, call, callee) in enumerate(_HOT):
        lines = (runtime / file).read_text().splitlines()
        start = next(n for n, t in enumerate(lines, 1) if re.match(rf"func {caller}\(", t))
        at = next(n for n, t in enumerate(lines[start:], start + 1) if call in t)
        # Places and functions by number: the callee's first, as a stack begins innermost.
        places = [2 * number + 1, 2 * number + 2]
        found += _field(2, _packed(1, places) + _packed(2, [1000]))
        for place, name, first, line in ((places[0], callee, 1, 1), (places[1], caller, start, at)):
            texts.append(f"runtime.{name}")
            found += _field(4, _number(1, place) + _field(4, _number(1, place) + _number(2, line)))
            found += _field(5, _number(1, place) + _number(2, len(texts) - 1) + _number(5, first))
    found += _field(1, _number(1, 1) + _number(2, 2))
    return found + b"".join(_field(6, text.encode()) for text in texts)


def _varint(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3, *_varint(value)])


def _field(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2, *_varint(len(data))]) + data


def _packed(field: int, values: list[int]) -> bytes:
    return _field(field, bytes(b for value in values for b in _varint(value)))
