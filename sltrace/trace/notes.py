"""What meta.json says was left out, ended early or seen in part, in sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_MAX_WHY = 200
_LONGEST = 600
"""Of a sentence, with the name of the trace that it is about."""
_MOST = 5
"""Of one kind that are named, each in a note."""
LEFT_OUT = {
    "native_stacks_refused": "times a native stack was left out: there were too many",
    "stacks_refused": "times a stack of Go or Python was left out: there were too many",
    "frames_without_lines": (
        "addresses of Go processes that had ended have no file and line: there were too many"
    ),
    "not_looked_at": "processes were not looked at: whether they are Go's is not known",
    "processes_refused": "processes were not looked into for Python: there were too many",
    "processes_unknown": "processes were not looked at in time: whether they are Python's is not "
    "known",
    "mapped_files_refused": "mapped files were not looked into: addresses in them have no names",
    "ended_processes_refused": "ended processes were too many: addresses in them have no names",
    "addresses_overwritten": "addresses have no names: their files were written over meanwhile",
    "perf_maps_missed": "ended processes' perf maps could not be read: what their JITs made has no "
    "names",
    "perf_maps_cut": "perf maps were longer than 64 MiB: what JITs made before that has no names",
    "perf_maps_refused": "perf maps were too much for one user: what JITs made has no names",
    "ended_targets_refused": "ended processes have no row in targets: there were too many",
    "cpus_not_sampled": "CPUs came online, or came back, meanwhile: no CPU samples of them since",
    "skipped_probe_runs": "runs of a probe were skipped by the kernel, as it was running already",
}
"""Of meta.json, or of a source in it: what was left out, and how often, in words."""
_WORTH_A_NOTE, _NEXT_TO_NOTHING = 1000, 0.01
"""Waits that a runtime noted itself while probes were on, and the share of them below which these
are taken to be in code that does not run."""
_ALL_THE_TIME = 0.999
"""A share of the time from which on it is not worth a note: probes are put in and taken out."""


def _sources(meta: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What recorders say of each thing they looked into, and its name."""
    sources = meta.get("sources")
    found = sources.items() if isinstance(sources, dict) else ()
    return [(name, source) for name, source in found if isinstance(source, dict)]


def called(meta: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """What recorders say of a source."""
    return [source for _, source in _called(meta, name)]


def _called(meta: dict[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    """The same, with the trace it is from: in a merged one it is called `TRACE: NAME`."""
    split = [(full.rpartition(": "), source) for full, source in _sources(meta)]
    return [(trace, source) for (trace, _, own), source in split if own == name]


def looked_in_part(meta: dict[str, Any]) -> list[str]:
    """Of which Go processes the probes were on for a part of the time, in sentences."""
    found = []
    for trace, go in _called(meta, "go"):
        # A process has the id here that its own recording had.
        whose = f" of {trace}" if trace else ""
        budget, processes = go.get("budget"), go.get("processes")
        if not isinstance(budget, float) or not isinstance(processes, list):
            continue
        for process in processes:
            looked = process.get("looked") if isinstance(process, dict) else None
            if isinstance(looked, float) and 0 <= looked < _ALL_THE_TIME:
                which = f"Go process {named_process(process, processes)}{whose}"
                found.append(
                    f"level {process.get('level')} looked at {which} {looked:.1%} of the time, "
                    f"to stay within {100 * budget:.3g}% of its CPU time"
                )
    if (more := len(found) - _MOST) > 0:
        found[_MOST:] = [f"{more:,} more Go processes were looked at in part, too"]
    return found


def unseen(meta: dict[str, Any]) -> list[str]:
    """Of which Go processes the probes told next to nothing of what their runtime noted."""
    found = []
    for go in called(meta, "go"):
        processes, counters = go.get("processes"), go.get("counters")
        probed = [
            p
            for p in (processes if isinstance(processes, list) else ())
            if isinstance(p, dict) and isinstance(p.get("level"), int) and p["level"] > 0
        ]
        for process in probed:
            noted, told, looked = (process.get(n) for n in ("noted", "told", "looked"))
            share = looked if isinstance(looked, float) and 0 <= looked <= 1 else 1.0
            if _is_unseen(told, noted, share):
                which = f"Go process {named_process(process, probed)}"
                found.append(
                    f"the probes in {which} told {told:,} waits where its runtime noted {noted:,}: "
                    "its code is not as known, and waits of goroutines are missing"
                )
        hits = counters if isinstance(counters, dict) else {}
        if {p["level"] for p in probed} == {2} and _is_unseen(
            hits.get("go_tracked_hits"), hits.get("go_records"), 1.0
        ):
            found.append(
                "the probe of level 2 saw next to no goroutine stop: its code is not as known, and "
                "how long goroutines were parked is missing"
            )
    return found[:_MOST]


def _is_unseen(seen: object, there: object, share: float) -> bool:
    if not isinstance(seen, int) or not isinstance(there, int) or not 0 <= there < 1 << 63:
        return False
    expected = there * share
    return expected >= _WORTH_A_NOTE and 0 <= seen < expected * _NEXT_TO_NOTHING


def named_process(process: dict[str, Any], others: list[Any]) -> str:
    """A Go process by its pid, and which of its programs this is if it was several.

    Args:
        process: As meta.json has it.
        others: All of its recording.
    """
    pid = process.get("pid")
    same = [o.get("nth") for o in others if isinstance(o, dict) and o.get("pid") == pid]
    several = sum(isinstance(nth, int) for nth in same) > 1
    return f"{pid} (program {process.get('nth')})" if several else f"{pid}"


def lost_of_goroutines(meta: dict[str, Any]) -> int:
    """Waits of goroutines that the ring had no room for."""
    counters = [go.get("counters") for go in called(meta, "go")]
    return _total(c.get("go_ring_full") for c in counters if isinstance(c, dict))


def unread_of_goroutines(meta: dict[str, Any]) -> int:
    """Waits of goroutines, at most, that the probes could not read."""
    counters = [go.get("counters") for go in called(meta, "go")]
    names = ("go_unreadable", "go_scratch_full")
    return _total(c.get(name) for c in counters if isinstance(c, dict) for name in names)


def noted_of_goroutines(meta: dict[str, Any]) -> list[int]:
    """One in how many waits of goroutines became a row, of each recording; none where all did."""
    ratios = [go.get("sampled") for go in called(meta, "go")]
    return sorted({n for n in ratios if isinstance(n, int) and 1 < n < 1 << 16})


def has_failed(meta: dict[str, Any], name: str) -> bool:
    """Whether an error of the recorder's own ended a source early."""
    return any(isinstance(source.get("failed"), dict) for source in called(meta, name))


def failed(meta: dict[str, Any]) -> list[str]:
    """Sources that an error of the recorder's own ended early."""
    found = []
    for name, source in _sources(meta):
        failed = source.get("failed")
        if isinstance(failed, dict):
            ns, why = failed.get("after_ns"), str(failed.get("why"))[:_MAX_WHY]
            after = "a while"
            if isinstance(ns, int) and 0 <= ns < 1 << 63:
                after = f"{ns / 1e9:.1f} s"
            found.append(f"what records {name} failed after {after}, and told no more: {why}")
    return found[:_MOST]


def listed(meta: dict[str, Any], name: str) -> list[str]:
    """The sentences that it lists under a name."""
    found = meta.get(name)
    return [str(said)[:_LONGEST] for said in found] if isinstance(found, list) else []


def of_recordings(meta: dict[str, Any]) -> list[str]:
    """Of a merged trace, what must be said of the recordings in it."""
    found = listed(meta, "notes")
    if (more := len(found) - _MOST) > 0:
        found[_MOST:] = [f"{more:,} more notes on the recordings in it are in its meta.json"]
    return found


def unfinished(meta: dict[str, Any], *, is_locked: bool) -> list[str]:
    """Why its end is missing, if it is.

    Args:
        meta: Of the trace.
        is_locked: Whether somebody writes to it.
    """
    if meta.get("finished"):
        return []
    if isinstance(why := meta.get("cut_short"), str):
        how = f"its recorder could not write any more ({why[:_MAX_WHY]})"
    elif is_locked:
        how = "it is still being recorded"
    else:
        how = "its recorder was killed, or it was copied while it was recorded"
    return [f"{how}: up to the last second is missing"]


def refused(meta: dict[str, Any]) -> list[str]:
    """What was left out."""
    found = []
    for key, words in LEFT_OUT.items():
        if count := _total(of.get(key) for of in (meta, *(s for _, s in _sources(meta)))):
            found.append(f"{count:,} {words}")
    return found


def _total(counts: Iterable[object]) -> int:
    """The sum of those that are counts."""
    return sum(n for n in counts if isinstance(n, int) and 0 < n < 1 << 63)


def sampling(meta: dict[str, Any], looked: list[str]) -> list[str]:
    """What is not whole because only a part was recorded, `looked` among it, in sentences."""
    notes = []
    if lost := lost_of_goroutines(meta):
        notes.append(f"{lost:,} waits of goroutines are missing: the recorder was too slow")
    if unread := unread_of_goroutines(meta):
        notes.append(
            f"up to {unread:,} waits of goroutines, or their wakers or trace ids, are missing: "
            "the probes could not read them"
        )
    notes += unseen(meta)
    for go in called(meta, "go"):
        left_out = go.get("left_out")
        if isinstance(left_out, int) and left_out > 0:
            notes.append(f"{left_out:,} more Go processes were not looked into: they were too many")
    return [
        *(
            f"of waits of goroutines the runtime notes 1 in {one_in}: counts and times are of "
            "those, nothing is scaled up"
            for one_in in noted_of_goroutines(meta)
        ),
        *(f"{part}: waits of goroutines and stopped worlds are of that" for part in looked),
        *notes,
    ]
