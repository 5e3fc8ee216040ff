"""What the page says about a recording before it shows anything: where, when, how, what is missing
and what is wrong.

Metadata comes from a file that anyone may have written: every value is checked or made text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heatmaps.encode import bounded, said
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.analysis.cubedata import Cube
    from sltrace.analysis.losses import Losses
    from sltrace.trace.reader import Trace

_MAX_LINES = 200

COUNTED = {
    "below_min": ("wait", "shorter than --min-latency"),
    "cgroup_ring_full": ("cgroup name", "that found no room"),
    "clock_backwards": ("wait", "that ended before it began"),
    "not_followed": ("time", "a child or new cgroup was not followed"),
    "python_names_lost": ("stack", "of asyncio tasks that have too many names"),
    "python_native_lost": ("native stack", "of CPU samples that found no room"),
    "python_processes_lost": ("time", "a child was not followed"),
    "python_samples_lost": ("CPU sample", "that found no room"),
    "python_stacks_capped": ("Python stack", "over --python-rate"),
    "python_stacks_cut": ("Python stack", "of more than 128 frames"),
    "python_stacks_failed": ("Python stack", "not read to its end"),
    "python_stacks_lost": ("Python stack", "that found no room"),
    "python_threads_lost": ("Python thread", "beyond those that are followed"),
    "stack_ring_full": ("stack", "that found no room"),
    "stacks_capped": ("stack", "over --stack-rate"),
    "stacks_failed": ("kernel stack", "that could not be walked"),
    "task_ring_full": ("thread name", "that found no room"),
}
"""By counter of what was refused on purpose or is incomplete: one of it, and what about it."""


def facts(trace: Trace, cube: Cube) -> dict[str, Any]:
    """Host, times, command, losses, overhead and notes as plain JSON values."""
    from sltrace.analysis.meta import recorded_ns
    from sltrace.analysis.timelost import in_two_kinds
    from sltrace.analysis.together import not_together

    meta = trace.meta
    lost = cube.losses
    clock = _mapping(meta.get("clock"))
    return {
        "name": bounded(trace.path.name),
        "host": bounded(meta.get("host")),
        "kernel": bounded(meta.get("kernel")),
        "arch": bounded(meta.get("arch")),
        "cpus": _natural(meta.get("cpus")),
        "created": bounded(meta.get("created")),
        "start_unix_ns": _natural(clock.get("start_unix_ns")) or 0,
        "start_ns": _natural(clock.get("start_ns")) or 0,
        "recorded_ns": recorded_ns(trace),
        "command": [bounded(a) for a in _list(meta.get("command_line"))],
        "filters": _filters(meta.get("filters")),
        "recordings": _recordings(trace),
        "loader": bounded(meta.get("loader")),
        "min_latency_ns": _natural(meta.get("min_latency_ns")) or 0,
        "missed": lost.missed_count,
        "unread": lost.unread,
        "losses": notice(lost),
        "discards": _counted(lost, "discard"),
        "partial": _counted(lost, "partial"),
        "overhead": {k: _natural(v) for k, v in _mapping(meta.get("overhead")).items()},
        "notes": [
            said(note)
            for note in (
                *cube.notes,
                *filter(None, [in_two_kinds(trace), not_together(trace, {})]),
                *trace.notes,
                *_list(meta.get("limits")),
            )
        ],
        "not_attached": _not_attached(_mapping(meta.get("probes")).get("not_attached")),
    }


def _counted(lost: Losses, kind: str) -> list[str]:
    """What the counters of a class tell, in words."""
    found = []
    for counter in lost.counters:
        if counter.kind == kind and counter.value:
            what, about = COUNTED.get(counter.name, (bounded(counter.name).replace("_", " "), ""))
            found.append(f"{counted(counter.value, what)} {about}".rstrip())
    return found


def notice(lost: Losses) -> dict[str, str]:
    """What is missing as a sentence, and the look of it: bad, fair or good."""
    look = "bad" if lost.lost or lost.unread else "fair" if lost.missed_count else "good"
    return {"look": look, "sentence": _sentence(lost.sentence)}


def diagnosis(trace: Trace, lost: Losses) -> dict[str, Any]:
    """What is wrong, with the waits each finding is about, and what could not be looked into.

    Args:
        trace: Where from.
        lost: What it lacks.
    """
    from sltrace.analysis.diagnosis import diagnose

    found = diagnose(trace, lost=lost)
    return {
        "findings": [
            {
                "title": f.name.label,
                "sentence": said(f.sentence),
                "advice": said(f.advice),
                "values": {k: [bounded(v) for v in values] for k, values in f.values.items()},
            }
            for f in found.findings
        ],
        "notes": [_sentence(n) for n in found.notes],
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{said(text[1:])}."


def _recordings(trace: Trace) -> list[dict[str, Any]]:
    """Of a merged trace each recording that is in it: whose it is, when, and how it was made."""
    from sltrace.analysis.meta import clock_ns, merged_parts, natural

    began = clock_ns(trace, "start_ns")
    return [
        {
            "trace": bounded(part.get("trace")),
            "host": bounded(part.get("host")),
            "from": max(0, natural(part.get("start_ns")) - began),
            "ns": max(0, natural(part.get("end_ns")) - natural(part.get("start_ns"))),
            "cpu": natural(part.get("cpu_offset")),
            "pid": natural(part.get("pid_offset")),
            "filters": _filters(part.get("filters")),
            "command": [bounded(a) for a in _list(part.get("command_line"))],
        }
        for part in merged_parts(trace)[:_MAX_LINES]
    ]


def _filters(filters: object) -> dict[str, str]:
    """Each filter and its value."""
    return {
        bounded(name): bounded(", ".join(map(str, v)) if isinstance(v, list) else v)
        for name, v in list(_mapping(filters).items())[:_MAX_LINES]
        if v not in (None, [], 0, "", False)
    }


def _not_attached(value: object) -> list[str]:
    if isinstance(value, dict):
        return [bounded(f"{k}: {v}") for k, v in list(value.items())[:_MAX_LINES]]
    return [
        bounded(" ".join(map(str, v.values())) if isinstance(v, dict) else v) for v in _list(value)
    ]


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value[:_MAX_LINES] if isinstance(value, list) else []


def _natural(value: object) -> int | None:
    """The number if it is one that the page can compute with exactly enough, else None."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**63 else None
