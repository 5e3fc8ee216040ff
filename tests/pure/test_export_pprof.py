"""pprof profiles, read back twice: with the compiled schema and byte by byte without it."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.latency import stat
from sltrace.analysis.selection import Selection
from sltrace.export.pprof import write_pprof
from sltrace.trace.reader import Trace
from tests.support.profiles import message_of
from tests.support.traces import SECOND, make_trace

KERNEL = 0xFFFFFFFF81000000
STACKS = [
    {"stack_id": 1, "space": "kernel", "pid": 0, "addresses": [KERNEL]},
    {"stack_id": 2, "space": "user", "pid": 100, "addresses": [0x7F0010, 0x7F0020]},
    {"stack_id": 3, "space": "user", "pid": 200, "addresses": [0x550010, 0x550020]},
]
FRAMES = [
    {"space": "kernel", "pid": 0, "address": KERNEL, "name": "schedule", "module": "[kernel]"},
    {"space": "user", "pid": 100, "address": 0x7F0010, "name": "read", "module": "web"},
    {"space": "user", "pid": 100, "address": 0x7F0020, "name": "main", "module": "web"},
    {"space": "user", "pid": 200, "address": 0x550010, "name": "read", "module": "web"},
    {"space": "user", "pid": 200, "address": 0x550020, "name": "main", "module": "web"},
]
MAPPINGS = [
    {"pid": pid, "start": start, "end": start + 0x1000, "offset": 0x2000, "path": "/opt/web"}
    | {"build_id": "abcd"}
    for pid, start in ((100, 0x7F0000), (200, 0x550000))
]
TRACE_ID, SPAN_ID = "0123456789abcdef" * 2, "0123456789abcdef"
WAITS: list[dict[str, Any]] = [
    {"stack_kernel": 1, "stack_user": 2, "wait_ns": 10, "trace_id": TRACE_ID, "span_id": SPAN_ID},
    {"stack_kernel": 1, "stack_user": 3, "wait_ns": 20, "cpu": 3},
    {"stack_kernel": 1, "stack_user": 3, "wait_ns": 22, "cpu": 3},
    {"wait_ns": 40, "kind": "runq_preempt", "cgroup": "/a", "comm": "db"},
]


def make(folder: Path, waits: list[dict[str, Any]] = WAITS) -> Trace:
    path = make_trace(folder, waits, stacks=STACKS, frames=FRAMES, mappings=MAPPINGS)
    return Trace.open(path)


def profile_bytes(trace: Trace, **options: Any) -> bytes:
    out = io.BytesIO()
    write_pprof(trace, out, **options)
    return gzip.decompress(out.getvalue())


def labels(profile: Any, sample: Any) -> dict[str, Any]:
    text = profile.string_table
    return {text[x.key]: text[x.str] if x.str else (x.num, text[x.num_unit]) for x in sample.label}


def test_samples_have_values_labels_and_leaf_first_stacks(tmp_path: Path) -> None:
    profile = message_of(profile_bytes(make(tmp_path)))
    text = profile.string_table
    assert text[0] == ""
    assert [(text[t.type], text[t.unit]) for t in profile.sample_type] == [
        ("waits", "count"),
        ("wait", "nanoseconds"),
    ]
    assert text[profile.default_sample_type] == "wait"
    assert profile.time_nanos == 1_700_000_000 * SECOND
    assert profile.duration_nanos == 10 * SECOND
    assert not profile.HasField("period_type")
    names = {f.id: text[f.name] for f in profile.function}
    where = {x.id: x for x in profile.location}
    samples = {
        s.value[1]: (
            s.value[0],
            [names[where[i].line[0].function_id] for i in s.location_id],
            labels(profile, s),
        )
        for s in profile.sample
    }
    web = {"kind": "runq_wakeup", "cgroup": "/", "comm": "web"}
    assert samples == {
        10: (
            1,
            ["schedule", "read", "main"],
            web | {"cpu": (0, "cpu"), "trace_id": TRACE_ID, "span_id": SPAN_ID},
        ),
        42: (2, ["schedule", "read", "main"], web | {"cpu": (3, "cpu")}),
        40: (
            1,
            ["[no stack recorded]"],
            {"kind": "runq_preempt", "cgroup": "/a", "comm": "db", "cpu": (0, "cpu")},
        ),
    }


@pytest.mark.parametrize(
    ("start", "end", "began", "length"),
    [(2, 5, 2, 3), (None, 4, 0, 4), (9, None, 9, 1), (-5, 99, 0, 10)],
)
def test_a_part_of_the_time_is_as_long_as_it_is(
    tmp_path: Path, start: int | None, end: int | None, began: int, length: int
) -> None:
    """`go tool pprof` divides by it: 3 s of waits within 1 s are 300 %."""
    selection = Selection(
        start_ns=None if start is None else start * SECOND,
        end_ns=None if end is None else end * SECOND,
    )
    profile = message_of(profile_bytes(make(tmp_path), selection=selection))
    assert profile.time_nanos == (1_700_000_000 + began) * SECOND
    assert profile.duration_nanos == length * SECOND


def test_source_files_lines_and_names_are_as_the_runtimes_have_them(tmp_path: Path) -> None:
    stacks = [
        {"stack_id": 7, "space": "python", "pid": 100, "addresses": [3, 2, 1]},
        {"stack_id": 8, "space": "user", "pid": 100, "addresses": [9]},
    ]
    frames = [
        {"space": "python", "pid": 100, "address": a, "name": name, "language": "python"}
        | {"module": "svc.py", "file": "/opt/svc.py", "line": line}
        for a, name, line in ((1, "<module>", 50), (2, "<lambda>", 7), (3, "handle", 23))
    ]
    frames.append(
        {"space": "user", "pid": 100, "address": 9, "name": "_Z1fv", "language": "native"}
        | {"module": "libf.so", "line": None}
    )
    path = make_trace(
        tmp_path, [{"stack_runtime": 7, "stack_user": 8}], stacks=stacks, frames=frames
    )
    profile = message_of(profile_bytes(Trace.open(path)))
    text = profile.string_table
    functions = {f.id: f for f in profile.function}
    found = {}
    for place in profile.location:
        (line,) = place.line
        function = functions[line.function_id]
        found[text[function.name]] = (text[function.filename], line.line, function.system_name)
    # pprof makes names of C++ out of what is a system's name: `<module>` would be nothing.
    assert {n: (f, line) for n, (f, line, _) in found.items()} == {
        "<module> (svc.py)": ("/opt/svc.py", 50),
        "<lambda> (svc.py)": ("/opt/svc.py", 7),
        "handle (svc.py)": ("/opt/svc.py", 23),
        "_Z1fv": ("libf.so", 0),
    }
    assert {text[s] for _, _, s in found.values()} == {"", "_Z1fv"}


def test_processes_that_run_one_file_share_its_mapping_and_locations(tmp_path: Path) -> None:
    profile = message_of(profile_bytes(make(tmp_path)))
    text = profile.string_table
    mappings = {text[m.filename]: m for m in profile.mapping}
    assert set(mappings) == {"/opt/web", "[kernel]"}
    web = mappings["/opt/web"]
    assert text[web.build_id] == "abcd"
    assert web.has_functions
    inside = [x.address for x in profile.location if x.mapping_id == web.id]
    assert sorted(inside) == [0x2010, 0x2020]
    for place in profile.location:
        if place.mapping_id:
            mapping = profile.mapping[place.mapping_id - 1]
            assert mapping.memory_start <= place.address < mapping.memory_limit


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and raw values of one protobuf message (encoding: varint and length only)."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        value: Any
        if tag & 7 == 0:
            value, at = varint(data, at)
        elif tag & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise AssertionError(f"wire type {tag & 7}")
        yield tag >> 3, value


def packed(data: bytes) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        values.append(value)
    return values


def test_programs_that_one_process_ran_keep_their_mappings(tmp_path: Path) -> None:
    """A process became another program, whose files are where those of the first were, or near."""
    old, new = 0x400100, 0x400200
    stacks = [
        {"stack_id": i, "space": "user", "pid": 100, "addresses": [address]}
        for i, address in enumerate((old, new, 0x400300, 0x900010), 2)
    ]
    own = {"space": "user", "pid": 100, "language": "native"}
    frames = [
        own | {"address": old, "name": "early", "module": "sh", "build_id": "aa"},
        own | {"address": new, "name": "late", "module": "web", "build_id": ""},
        own | {"address": 0x400300, "name": "[unknown]", "module": "", "build_id": ""},
        own | {"address": 0x900010, "name": "read", "module": "libc.so", "build_id": "cc"},
    ]
    mappings = [
        {"pid": 100, "start": start, "end": end, "offset": offset, "path": path, "build_id": build}
        for start, end, offset, path, build in (
            (0x400000, 0x401000, 0x1000, "/bin/sh", "aa"),
            (0x400000, 0x401000, 0x2000, "/opt/web", ""),
            # A small one of the other program begins between another and an address in it.
            (0x900000, 0x910000, 0, "/lib/libc.so", "cc"),
            (0x900000, 0x900004, 0, "/lib/small.so", "dd"),
        )
    ]
    waits = [{"stack_user": i, "wait_ns": i} for i in (2, 3, 4, 5)]
    trace = Trace.open(make_trace(tmp_path, waits, stacks=stacks, frames=frames, mappings=mappings))
    profile = message_of(profile_bytes(trace))
    text = profile.string_table
    files = {m.id: text[m.filename] for m in profile.mapping}
    names = {f.id: text[f.name] for f in profile.function}
    places = {
        names[place.line[0].function_id]: (files.get(place.mapping_id), place.address)
        for place in profile.location
    }
    assert places == {
        "early": ("/bin/sh", 0x1100),
        "late": ("/opt/web", 0x2200),
        # Of which program that is nobody knows.
        "[unknown]": (None, 0x400300),
        "read": ("/lib/libc.so", 0x10),
    }


def test_the_field_numbers_are_pprofs(tmp_path: Path) -> None:
    """Numbers from pprof's published schema, read without ours."""
    message = list(fields(profile_bytes(make(tmp_path))))
    strings = [value.decode() for number, value in message if number == 6]
    functions = {}
    for number, value in message:
        if number == 5:
            function = dict(fields(value))
            functions[function[1]] = strings[function[2]]
    locations = {}
    for number, value in message:
        if number == 4:
            location = dict(fields(value))
            locations[location[1]] = functions[dict(fields(location[4]))[1]]
    found: Counter[tuple[str, ...]] = Counter()
    for number, value in message:
        if number == 2:
            sample = dict(fields(value))
            stack = tuple(locations[i] for i in packed(sample[1]))
            found[stack] += packed(sample[2])[1]
    assert found == {("schedule", "read", "main"): 52, ("[no stack recorded]",): 40}
    default = next(value for number, value in message if number == 14)
    assert strings[default] == "wait"


@pytest.mark.parametrize(
    ("cap", "kept"),
    [(1000, "all"), (230, "no cpu"), (60, "no ids"), (9, "base"), (3, "base"), (2, "base")],
)
def test_never_more_samples_than_the_cap_and_never_less_time(
    tmp_path: Path, cap: int, kept: str
) -> None:
    waits = [
        {"wait_ns": i, "comm": "ab"[i % 2], "cpu": i % 16, "trace_id": f"{i % 101:032x}"}
        for i in range(404)
    ]
    trace = make(tmp_path, waits)
    out = io.BytesIO()
    written = write_pprof(trace, out, max_samples=cap)
    profile = message_of(gzip.decompress(out.getvalue()))
    assert len(profile.sample) <= cap
    total = stat(trace).totals["runq"]
    assert sum(s.value[0] for s in profile.sample) == total.count == written.waits
    assert sum(s.value[1] for s in profile.sample) == total.total_ns == written.wait_ns
    names = {
        "all": {"cpu", "trace_id"},
        "no cpu": {"trace_id"},
        "no ids": {"cpu"},
        "base": set(),
    }[kept]
    found = set().union(*(labels(profile, s) for s in profile.sample))
    assert found == {"kind", "cgroup", "comm"} | names
    assert bool(written.notes) == (kept != "all")
    assert any("small samples" in note for note in written.notes) == (cap == 2)


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    hostile = "\x1b]0;owned\x07\u202eevil"
    trace = make(tmp_path, [{"comm": hostile, "cgroup": "/\n"}])
    profile = message_of(profile_bytes(trace))
    assert "\\x1b]0;owned\\x07\\u202eevil" in profile.string_table
    assert not any(c in s for s in profile.string_table for c in "\x1b\x07\u202e\n")


def test_metadata_of_the_wrong_type_does_no_harm(tmp_path: Path) -> None:
    path = make_trace(tmp_path, [{}], meta={"clock": {"start_unix_ns": 2**80}, "host": ["x"]})
    profile = message_of(profile_bytes(Trace.open(path)))
    assert (profile.time_nanos, len(profile.sample)) == (0, 1)
