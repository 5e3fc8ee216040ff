"""Several traces as one: clocks aligned, ids kept apart (docs/schema.md, Merged traces)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltrace.errors import OutputError, UsageError
from sltrace.trace.clock import Clock
from sltrace.trace.folder import is_locked
from sltrace.trace.machines import Part, parts_of
from sltrace.trace.notes import LEFT_OUT, listed, unfinished
from sltrace.trace.schema import TABLES, arrow_schema
from sltrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

TIMES = ("end_ns", "start_ns", "seen_ns", "from_ns", "until_ns", "created_ns", "removed_ns", "ns")
PIDS = ("pid", "tid", "waker_pid", "waker_tid", "culprit_pid", "culprit_tid", "ppid")
CPUS = ("cpu", "prev_cpu")
NODES = ("node",)
CGROUP_IDS = ("cgroup_id", "culprit_cgroup_id")
CGROUP_PATHS = ("cgroup", "culprit_cgroup", "path")
STACK_IDS = ("stack_kernel", "stack_user", "waker_stack_kernel", "waker_stack_user")
RUNTIME_STACK_IDS = ("stack_id", "stack_runtime", "waker_stack_runtime", "culprit_stack")
ADDRESSES = ("address", "addresses")
"""Columns whose values are moved, by what they are; all others stay as they are."""

_BATCH = 1 << 18


def merge(
    traces: Sequence[Trace],
    path: Path,
    *,
    profiles: Sequence[Mapping[str, Any]] = (),
    force: bool = False,
) -> list[Part]:
    """Writes a trace that has everything of several.

    Args:
        traces: One or more; the merged trace has the first one's clock, where all are of its time.
        path: The trace to write.
        profiles: More rows of the table `profiles`; their times are of the wall clock.
        force: Replace a trace that is there.

    Raises:
        UsageError: They cannot be counted together, or have the same waits.
        TraceError: One is damaged, or does not say when it was recorded.
        OutputError: The trace cannot be written.
    """
    if not traces or len(traces) + len(profiles) < 2:
        raise UsageError("there is nothing to merge", "name two traces, or a trace and a profile")
    parts = parts_of(traces)
    _refuse_unlike(traces)
    for i, part in enumerate(parts):
        for other in parts[:i]:
            _refuse_twice(other, part)
    writer = TraceWriter.create(path, merged_meta(parts, profiles), force=force)
    try:
        _write(writer, parts, profiles)
    except BaseException as err:
        # A part of it would pass for a trace of which the recorder was killed.
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(err, OutputError):
            raise OutputError(err.message, "free some space, or choose another -o") from err
        raise
    return parts


def _write(
    writer: TraceWriter, parts: Sequence[Part], profiles: Sequence[Mapping[str, Any]]
) -> None:
    several = _several(parts)
    for table in TABLES:
        segment = None
        for part in parts:
            for batch in _moved(part, table, several):
                segment = segment or writer.segment(table)
                segment.add(batch)
        if segment:
            segment.close()
    for row in profiles:
        # One at a time: each is as large as its file.
        writer.append("profiles", _placed(row, parts[0].reference))
    writer.close()


def _placed(row: Mapping[str, Any], clock: Clock) -> Any:
    """A row of the wall clock on the merged trace's clock."""
    import pyarrow as pa

    moved = {
        name: clock.monotonic(value) if name in TIMES and value is not None else value
        for name, value in row.items()
    }
    return pa.Table.from_pylist([moved], arrow_schema("profiles"))


def _moved(part: Part, table: str, several: bool) -> Any:
    import pyarrow as pa

    columns = ", ".join(
        f'{_column(part, table, c.name, several)} AS "{c.name}"' for c in TABLES[table]
    )
    for batch in part.trace.batches(f"SELECT {columns} FROM {table}", _BATCH):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _column(part: Part, table: str, name: str, several: bool) -> str:
    quoted = f'"{name}"'
    if name in TIMES:
        return part.time_sql(quoted)
    if name in CGROUP_PATHS and (name != "path" or table == "cgroups"):
        return _label(part, quoted) if several and part.machines == 1 else quoted
    if not (part.machine or part.python):
        return quoted
    if name in RUNTIME_STACK_IDS:
        return _stack_id(part, name, quoted)
    if name in ADDRESSES:
        return _address(part, name, quoted)
    if not part.machine:
        return quoted
    if name in PIDS:
        # 0 is the kernel, or the idle CPU, of every machine.
        return f"(CASE WHEN {quoted} > 0 THEN {quoted} + {part.pid} ELSE {quoted} END)"
    if name in CPUS:
        return f"({quoted} + {part.cpu})::USMALLINT"
    if name in NODES:
        return f"({quoted} + {part.node})::USMALLINT"
    if name in CGROUP_IDS:
        # -1 is what the probe's table had no room for.
        return f"(CASE WHEN {quoted} > 0 THEN xor({quoted}, {part.scatter}) ELSE {quoted} END)"
    if name in STACK_IDS:
        return f"xor({quoted}, {part.scatter})"
    return quoted


def _label(part: Part, quoted: str) -> str:
    label = part.label.replace("'", "''")
    return f"('{label}:' || {quoted})"


def _stack_id(part: Part, name: str, quoted: str) -> str:
    """Of a runtime, or any in `stacks`: what is not known to be of Go is taken for Python's."""
    is_python = (
        "space IS NOT DISTINCT FROM 'python'"
        if name == "stack_id"
        else f"{quoted} NOT IN (SELECT stack_id FROM stacks WHERE space = 'go' "
        "AND stack_id IS NOT NULL)"
    )
    return f"xor({quoted}, CASE WHEN {is_python} THEN {part.python} ELSE {part.scatter} END)"


def _address(part: Part, name: str, quoted: str) -> str:
    """Every machine has its kernel at the same addresses, and every recording its first number."""
    low, top = (1 << 48) - 1, part.address_top << 48

    def of_kernel(address: str) -> str:
        if not part.machine:
            return address
        if part.machines > 1:
            # Each of its machines has numbers of its own there.
            lower = part.machine << 48
            return f"{address} - least({address}, {lower}::UBIGINT)"
        return f"({address} & {low}::UBIGINT) | {top}::UBIGINT"

    def of_python(address: str) -> str:
        return f"xor({address}, {part.python}::UBIGINT)"

    def moved(how: Callable[[str], str]) -> str:
        return how(quoted) if name == "address" else f"[{how('a')} for a in {quoted}]"

    is_kernel = "pid = 0" if name == "address" else "space = 'kernel'"
    return (
        f"(CASE WHEN space = 'python' THEN {moved(of_python)} "
        f"WHEN {is_kernel} THEN {moved(of_kernel)} ELSE {quoted} END)"
    )


def _refuse_unlike(traces: Sequence[Trace]) -> None:
    for trace in traces:
        if trace.damage:
            raise UsageError(
                f"parts of {trace.path} cannot be read: {trace.damage[-1]}",
                "a merged trace could not say so; copy it again, or leave it out",
            )
    for key, option in (
        ("histogram_only", "--histogram-only"),
        ("min_latency_ns", "--min-latency"),
        ("blocked", "--no-blocked"),
    ):
        # A merged trace of those that do not say has null.
        said = [t.meta.get(key) for t in traces]
        if len({str(key == "blocked" if value is None else value) for value in said}) > 1:
            raise UsageError(
                f"the traces were not all recorded with the same {option}",
                "their waits cannot be counted together: merge those that were",
            )


def _refuse_twice(a: Part, b: Part) -> None:
    """Two recordings of one thread at one time have the same waits; so may those of one cgroup."""
    start = max(a.clock.start_ns, b.clock.start_ns)
    end = min(a.clock.end_ns, b.clock.end_ns)
    if a.machine != b.machine or start >= end:
        return
    query = "SELECT DISTINCT tid FROM waits WHERE end_ns >= ? AND end_ns < ? AND tid IS NOT NULL"
    tids = [set(p.trace.sql(query, (start, end))["tid"].to_pylist()) for p in (a, b)]
    if both := tids[0] & tids[1]:
        raise UsageError(
            f"{a.trace.path} and {b.trace.path} both have waits of thread {min(both)} at the same "
            "time",
            "merged, they would count twice: merge recordings of other times, or of other threads",
        )
    counted_only = any(a.trace.meta.get(key) for key in ("histogram_only", "min_latency_ns"))
    if counted_only and not all(tids) and (groups := _counted_in_both(a, b, start, end)):
        raise UsageError(
            f"{a.trace.path} and {b.trace.path} both count waits of cgroup {groups[0]} at the same "
            "time",
            "merged, they may count twice: merge recordings of other times, or of other cgroups",
        )


def _counted_in_both(a: Part, b: Part, start_ns: int, end_ns: int) -> list[str]:
    """The paths of cgroups with waits of one policy and kind in the histograms of both."""
    query = (
        "SELECT DISTINCT cgroup_id, policy, kind, cgroup FROM histogram_sums "
        "WHERE end_ns > ? AND start_ns < ? AND count > 0"
    )
    found = [
        {(r["cgroup_id"], r["policy"], r["kind"]): str(r["cgroup"]) for r in rows.to_pylist()}
        for rows in (p.trace.sql(query, (start_ns, end_ns)) for p in (a, b))
    ]
    return sorted(found[0][key] for key in found[0].keys() & found[1].keys())


def merged_meta(
    parts: Sequence[Part], profiles: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The description of the merged trace: what all have, and `merged` with what each is."""
    first = parts[0]
    metas = [p.trace.meta for p in parts]
    machines = {p.machine: p for p in reversed(parts)}
    return {
        **{k: first.trace.meta.get(k) for k in ("sltrace", "created", "command_line", "loader")},
        **{k: first.trace.meta.get(k) for k in ("histogram_only", "min_latency_ns", "blocked")},
        "host": ", ".join(machines[m].label for m in sorted(machines)),
        "boot_id": _boot_id(parts),
        "kernel": ", ".join(dict.fromkeys(str(m.get("kernel")) for m in metas)),
        "arch": ", ".join(dict.fromkeys(str(m.get("arch")) for m in metas)),
        "cpus": sum(_number(p.trace.meta.get("cpus")) for p in machines.values()),
        "nodes": _nodes(machines),
        "clock": _clock(parts),
        "filters": {},
        "cgroup": first.trace.meta.get("cgroup"),
        "stacks": first.trace.meta.get("stacks"),
        "probes": _probes(metas),
        "counter_classes": _joined(metas, "counter_classes"),
        "sources": _sources(parts) | _files(profiles),
        "cpu_times": {},
        "overhead": _overhead(metas),
        "limits": _limits(parts),
        "notes": _notes(parts),
        **_left_out(metas),
        "merged": [asdict(recording) for part in parts for recording in part.recordings],
    }


def _clock(parts: Sequence[Part]) -> dict[str, int]:
    """Of one boot with the wall clock as it was at both ends; else as the reference's would be."""
    reference = parts[0].reference
    start = min(p.moved(p.clock.start_ns) for p in parts)
    end = max(p.moved(p.clock.end_ns) for p in parts)
    times = {"start_ns": start, "end_ns": end}
    if not all(p.same_clock for p in parts):
        walls = {"start_unix_ns": reference.unix(start), "end_unix_ns": reference.unix(end)}
        return times | walls
    clocks = [p.clock for p in parts]
    first, last = min(clocks, key=lambda c: c.start_ns), max(clocks, key=lambda c: c.end_ns)
    # Ahead since the first one's start; each knows it since its own.
    ahead = [c.start_unix_ns - c.start_ns - first.start_unix_ns + first.start_ns for c in clocks]
    furthest = [a + ns for a, c in zip(ahead, clocks, strict=True) for ns in (0, c.furthest_ns)]
    return {
        **times,
        "start_unix_ns": first.start_unix_ns,
        "end_unix_ns": last.end_unix_ns,
        "furthest_ns": max(furthest, key=abs),
    }


def _left_out(metas: Sequence[dict[str, Any]]) -> dict[str, int]:
    """What the parts left out, together; nothing of what none of them tells of."""
    return {
        name: sum(_number(meta.get(name)) for meta in metas)
        for name in LEFT_OUT
        if any(name in meta for meta in metas)
    }


def _boot_id(parts: Sequence[Part]) -> str | None:
    """That of its machine; of several each recording has its own."""
    known = (r.boot_id for p in parts for r in p.recordings if r.boot_id)
    return None if _several(parts) else next(known, None)


def _several(parts: Sequence[Part]) -> bool:
    """Whether they are of more than one machine."""
    return len({r.machine for p in parts for r in p.recordings}) > 1


def _nodes(machines: dict[int, Part]) -> dict[str, list[int]]:
    found = {}
    for part in machines.values():
        nodes = part.trace.meta.get("nodes")
        for name, cpus in nodes.items() if isinstance(nodes, dict) else ():
            if name.isascii() and name.isdigit() and isinstance(cpus, list):
                known = [c + part.cpu for c in cpus if isinstance(c, int)]
                found[str(int(name) + part.node)] = known
    return found


def _probes(metas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    probes = [m["probes"] for m in metas if isinstance(m.get("probes"), dict)]
    lists = {
        key: [v for p in probes if isinstance(p.get(key), list) for v in p[key]]
        for key in ("attached", "not_attached")
    }
    return {
        "attached": sorted({str(v) for v in lists["attached"]}),
        "not_attached": lists["not_attached"],
    }


def _joined(metas: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    return {k: v for m in metas if isinstance(m.get(key), dict) for k, v in m[key].items()}


def _sources(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        f"{p.name}: {name}": value
        for p in parts
        if isinstance(p.trace.meta.get("sources"), dict)
        for name, value in p.trace.meta["sources"].items()
    }


def _files(profiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the profiles are that no trace brought."""
    if not profiles:
        return {}
    size = sum(row["size"] for row in profiles)
    return {"merge: profiles": {"received": {"file": len(profiles)}, "bytes": size, "refused": {}}}


def _overhead(metas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    used = [m["overhead"] for m in metas if isinstance(m.get("overhead"), dict)]
    names = ("probe_ns", "switches", "recorder_cpu_ns", "wall_ns")
    return {
        **{n: sum(_number(u.get(n)) for u in used) for n in names},
        "probe_ns_per_switch": 0,
        "probe_ns_at_least": any(u.get("probe_ns_at_least") for u in used),
    }


def _limits(parts: Sequence[Part]) -> list[str]:
    found = [f"{p.name}: {limit}" for p in parts for limit in listed(p.trace.meta, "limits")]
    if _several(parts):
        found.append(
            "clocks of different machines were aligned through their wall clocks: they may be off "
            "by as much as those were"
        )
    return found


def _notes(parts: Sequence[Part]) -> list[str]:
    """What must be said of each, and is in nothing else of what the merged trace has of it."""
    found = []
    for part in parts:
        meta, path = part.trace.meta, part.trace.path
        own = [*listed(meta, "notes"), *unfinished(meta, is_locked=is_locked(path))]
        if part.clock.stepped and not part.inner:
            own.append("its wall clock was set during the recording")
        found += [f"{part.name}: {note}" for note in own]
    return found


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**62 else 0
