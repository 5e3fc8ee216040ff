"""Where the holder of the GIL was while others waited."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sltrace.capture.python.holders import KEEP_NS, MAX_KNOWN, Holders
from sltrace.model import Kind

MS = 1_000_000
WAIT = np.dtype(
    [("kind", "u1"), ("culprit_tid", "u4"), ("end_ns", "u8"), ("wait_ns", "u8"),
     ("culprit_stack", "u8")]
)  # fmt: skip
SAMPLE = np.dtype([("ns", "u8"), ("tid", "u4"), ("tag", [("stack_runtime", "u8")])])
HOLDER, OTHER = 7, 8
TAKING, COMPUTING, LATER = 1 << 63 | 1, 1 << 63 | 2, 3


def _settled(
    holders: Holders,
    waits: Sequence[tuple[int, int, int, int, int]],
    *samples: tuple[float, int, int],
) -> list[int]:
    """Of waits as (kind, holder, end, length, stack), in ms; samples as (time, thread, stack)."""
    ms = [(kind, tid, end * MS, ns * MS, stack) for kind, tid, end, ns, stack in waits]
    taken = [(int(at * MS), tid, (stack,)) for at, tid, stack in samples]
    holders.sampled(np.array(taken, SAMPLE))
    records = np.array(ms, WAIT)
    holders.settle(records)
    stacks: list[int] = records["culprit_stack"].tolist()
    return stacks


def test_a_wait_has_where_its_holder_was_sampled_and_so_have_those_like_it() -> None:
    waits = [
        (Kind.GIL, HOLDER, 10, 3, TAKING),
        (Kind.GIL, HOLDER, 20, 3, TAKING),
        # Too short to tell.
        (Kind.GIL, HOLDER, 30, 1, TAKING),
        # It was at another place, or is another thread, or it is not known where it was.
        (Kind.GIL, HOLDER, 40, 3, LATER),
        (Kind.GIL, OTHER, 50, 3, TAKING),
        (Kind.GIL, HOLDER, 60, 3, 0),
        (Kind.LOOP, HOLDER, 10, 3, 0),
    ]
    holders = Holders()
    # What it does while nobody waits is nobody's wait.
    samples = [(6.9, HOLDER, LATER), (9, HOLDER, COMPUTING), (10.1, HOLDER, LATER), (8, 9, 5)]
    found = _settled(holders, waits, *samples)
    assert found == [COMPUTING, COMPUTING, TAKING, LATER, TAKING, 0, 0]
    # It is remembered.
    assert _settled(holders, [(Kind.GIL, HOLDER, 900, 3, TAKING)]) == [COMPUTING]


def test_of_several_samples_the_one_in_the_middle_is_taken() -> None:
    samples = [(at, HOLDER, at) for at in (96, 97, 98, 99, 101)]
    assert _settled(Holders(), [(Kind.GIL, HOLDER, 100, 5, TAKING)], *samples) in ([97], [98])


def test_little_is_remembered() -> None:
    holders = Holders()
    many = [(at, HOLDER, at) for at in range(1, 5 * KEEP_NS // MS, 2)]
    _settled(holders, [(Kind.GIL, HOLDER, at, 1, at) for at, _, _ in many], *many)
    assert len(holders._ns) <= KEEP_NS / MS
    assert len(holders._known) <= MAX_KNOWN
    assert _settled(holders, [(Kind.GIL, HOLDER, 20_000, 5, 0)], (19_999, HOLDER, 5)) == [5]
