"""The trace's own CPU samples as a profile, which a page shows beside the waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.analysis.cubestacks import OTHER_STACK
from sltrace.analysis.frames import Frame
from sltrace.analysis.meta import clock_ns, recorded_ns
from sltrace.analysis.stacks import PARTS, whole_stacks
from sltrace.profiles.labels import Labels
from sltrace.profiles.pprof import Profile, ProfileFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sltrace.analysis.cubedata import Cube
    from sltrace.analysis.cubeprofiles import Stretch
    from sltrace.trace.reader import Trace

WHERE = "this recording's CPU samples of Python processes"
MAX_STACKS = 50_000
"""Stacks whose frames are looked up, those with the most time."""
MAX_ROWS = 1_000_000
"""Samples with the same stack, thread, trace and time bin are one row; the rest is not shown."""

_NO_STACK = Frame("[no stack taken]")


def cpu_profile(trace: Trace, cube: Cube, part: Stretch | None = None) -> Profile | None:
    """The samples taken on the CPU, each placed in its bin of the cube's time; None without any.

    Of a part of the recording only those in its time.

    Of a library without symbols the addresses are one frame, its name: samples of one function
    spread over many of them.
    """
    parts = PARTS["victim"]
    within = f"AND ns >= {part.start_ns} AND ns < {part.end_ns} " if part else ""
    rows = trace.sql(
        f"SELECT {', '.join(f'coalesce({p}, 0) AS {p}' for p in parts)}, tid, "
        "coalesce(trace_id, '') AS trace_id, "
        f"greatest(0, least({cube.n_bins - 1}, (ns - {cube.start_ns}) // {cube.bin_ns}))::BIGINT "
        "AS bin, sum(greatest(weight_ns, 0))::BIGINT AS total FROM samples "
        f"WHERE source = 'cpu' {within}GROUP BY ALL "
        f"ORDER BY total DESC, {', '.join(parts)}, tid, trace_id, bin LIMIT {MAX_ROWS}"
    )
    if not rows.num_rows:
        return None
    ids = np.stack([rows.column(p).to_numpy().astype(np.int64) for p in parts], 1)
    values = rows.column("total").to_numpy().astype(np.int64)
    distinct, stack_of_row = np.unique(ids, axis=0, return_inverse=True)
    frames, stacks = _named(trace, distinct, np.bincount(stack_of_row.ravel(), values))
    began, unix = clock_ns(trace, "start_ns"), clock_ns(trace, "start_unix_ns")
    start, end = (part.start_ns, part.end_ns) if part else (began, clock_ns(trace, "end_ns"))
    duration = max(0, end - start)
    shift = cube.start_ns - began + unix
    bins = [(shift + i * cube.bin_ns, cube.bin_ns) for i in range(cube.n_bins)]
    columns = (rows.column(c).to_pylist() for c in ("trace_id", "tid"))
    return Profile(
        where=WHERE,
        measure="cpu",
        unit="ns",
        start_unix_ns=unix and unix + start - began,
        duration_ns=duration if unix else 0,
        frames=frames,
        stacks=[stacks[i] for i in stack_of_row.ravel().tolist()],
        labels=list(map(_labels, *columns)),
        values=values.tolist(),
        windows=[bins[i] for i in rows.column("bin").to_pylist()] if unix else [],
        complete=True,
        paused_ns=duration - recorded_ns(trace, start, end),
        placed=True,
    )


def cpu_labels(trace: Trace) -> list[Labels]:
    """Those of the samples taken on the CPU, each once."""
    rows = trace.sql(
        "SELECT DISTINCT tid, coalesce(trace_id, '') AS trace_id FROM samples WHERE source = 'cpu'"
    )
    columns = (rows.column(c).to_pylist() for c in ("trace_id", "tid"))
    return list(map(_labels, *columns))


def _labels(trace_id: str, tid: int | None) -> Labels:
    return Labels(trace_id=trace_id, tid=str(tid or ""))


def _named(
    trace: Trace, ids: NDArray[np.int64], weights: NDArray[Any]
) -> tuple[list[ProfileFrame], list[tuple[int, ...]]]:
    """Frames, and the frame numbers of each stack."""
    frames: dict[ProfileFrame, int] = {}
    chosen = np.argsort(-weights, kind="stable")[:MAX_STACKS]
    whole = whole_stacks(trace, ids[chosen])

    def number(frame: Frame) -> int:
        return frames.setdefault(_frame(frame), len(frames))

    of_whole = [number(frame) for frame in whole.frames]
    stacks: list[tuple[int, ...]] = [(number(OTHER_STACK),)] * len(ids)
    for i, stack in zip(chosen.tolist(), whole.stacks, strict=True):
        stacks[i] = tuple(of_whole[f] for f in stack.tolist()) or (number(_NO_STACK),)
    return list(frames), stacks


def _frame(frame: Frame) -> ProfileFrame:
    unnamed = frame.module and frame.name.startswith(f"{frame.module}+0x")
    name = f"[{frame.module}]" if unnamed else frame.name
    return ProfileFrame(name, frame.module, frame.language)
