"""Profiles beside waits in one page: aligned by time, owned by traces and threads."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.cpusamples import cpu_profile
from sltrace.analysis.cube import build_cube
from sltrace.analysis.cubedata import Cube
from sltrace.analysis.cubeowners import Owners
from sltrace.analysis.cubeprofiles import OwnedProfiles, Stretch
from sltrace.analysis.part import Whole, part_of
from sltrace.cli.main import run
from sltrace.profiles import push_pb2, stored
from sltrace.profiles.pprof import Profile, parse_pprof
from sltrace.profiles.source import ProfileError
from sltrace.profiles.stored import read_profiles, stored_profiles
from sltrace.trace.reader import Trace
from tests.support.profiles import by_name, make_pprof, read_pprof, written
from tests.support.traces import META, SECOND, make_trace

A, B, C = ("4bf92f3577b34da6a3ce929d0e0e473" + digit for digit in "67a")


def beside(trace: Trace, profiles: list[Profile], part: Stretch | None = None) -> Cube:
    cube = build_cube(part_of(trace, part.start_ns, part.end_ns) if part else trace)
    owners = Owners(trace, (x for p in profiles for x in p.labels))
    return OwnedProfiles(trace, profiles, owners).beside(cube, part)


def test_whose_a_sample_is(tmp_path: Path) -> None:
    waits = [
        {"end_ns": SECOND},
        {"trace_id": A, "span_id": "a" * 16, "goid": 5, "end_ns": 3 * SECOND, "wait_ns": SECOND},
        {"trace_id": A, "span_id": "a" * 16, "goid": 5, "end_ns": 4 * SECOND},
        {"trace_id": B, "span_id": "b" * 16, "goid": 6, "end_ns": 5 * SECOND, "tid": 7},
        {"goid": 6, "end_ns": 6 * SECOND, "tid": 7, "comm": "a-longer-name-t"},
    ]
    trace = Trace.open(make_trace(tmp_path, waits))
    samples: list[dict[str, str | int]] = [
        {"trace_id": A.upper()},
        {"span_id": "b" * 16},
        {"goroutine": 5},
        # Waited for a trace, and also for none.
        {"goid": 6},
        # Never waited while it was recorded.
        {"trace_id": C},
        {"thread_name": "a-longer-name-than-the-kernel-has"},
        # Had two names.
        {"tid": 7},
        {"tid": 100},
    ]
    labelled = [(("work",), [1, 1 << i], labels) for i, labels in enumerate(samples)]
    data = make_pprof({("work",): [1, 1 << 20]}, labelled=labelled)
    cube = beside(trace, [read_pprof(written(tmp_path, data))])
    slow = [t.trace_id for t in cube.slow_traces.traces]
    found = {
        int(value): (
            slow[owner.trace] if owner.trace >= 0 else None,
            cube.buckets[owner.bucket] if owner.bucket >= 0 else None,
            cube.comms[owner.comm] if owner.comm >= 0 else None,
            (owner.start_ns + cube.start_ns, owner.end_ns + cube.start_ns)
            if owner.end_ns >= 0
            else None,
            owner.traced,
        )
        for value, owner in zip(
            cube.profile_rows["value"],
            (cube.profile_owners[i] for i in cube.profile_rows["owner"]),
            strict=True,
        )
    }
    of_a = (A, "ids ending in 6", None, (2 * SECOND, 4 * SECOND), True)
    assert found == {
        1 + 4: of_a,
        2: (B, "ids ending in 7", None, (5 * SECOND - 1000, 5 * SECOND), True),
        16: (None, None, None, None, True),
        32: (None, None, "a-longer-name-t", None, False),
        128: (None, None, "web", None, False),
        8 + 64 + (1 << 20): (None, None, None, None, False),
    }
    assert cube.profile_rows["value"].sum() == sum(1 << i for i in range(8)) + (1 << 20)


def test_labels_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sltrace.analysis.cubeprofiles.MAX_OWNED", 3)
    trace = Trace.open(make_trace(tmp_path, [{"trace_id": f"{i:032x}"} for i in range(9)]))
    labelled = [(("f",), [1, 10 + i], {"trace_id": f"{i:032x}"}) for i in range(9)]
    data = make_pprof({}, labelled=labelled)
    cube = beside(trace, [read_pprof(written(tmp_path, data))])
    assert sorted(cube.profile_rows["value"].tolist()) == [16, 17, 18, sum(range(10, 16))]
    assert "labels and times of the 6 smallest" in cube.notes[-1]


def test_stacks_meet_where_the_outermost_function_is(tmp_path: Path) -> None:
    names = {1: "runtime.goexit", 2: "main.serve", 3: "main.wait"}
    frames = [
        {"space": "go", "pid": 100, "address": a, "name": n, "language": "go"}
        for a, n in names.items()
    ]
    stacks = [{"stack_id": 1, "space": "go", "pid": 100, "addresses": [3, 2, 1]}]
    trace = Trace.open(make_trace(tmp_path, [{"stack_runtime": 1}], stacks=stacks, frames=frames))
    data = make_pprof(
        {("main.serve", "main.work"): [1, 40], ("main.other",): [1, 2]}, file="main.go"
    )
    cube = beside(trace, [read_pprof(written(tmp_path, data))])
    found = {
        tuple(cube.frames[f] for f in cube.stacks[stack]): ns
        for stack, ns in zip(cube.profile_rows["stack"], cube.profile_rows["value"], strict=True)
    }
    assert found == {("runtime.goexit", "main.serve", "main.work"): 40, ("main.other",): 2}
    assert cube.frame_kinds[cube.frames.index("main.work")] == "go"
    assert cube.frames.count("main.serve") == 1


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (0, "in 4.00 s"),
        (8, "2.00 s of them before or after"),
        (20, "all of it before or after"),
        (None, "does not say when"),
    ],
)
def test_other_times_are_said(tmp_path: Path, start: int | None, words: str) -> None:
    trace = Trace.open(make_trace(tmp_path, [{}]))
    began = 0 if start is None else META["clock"]["start_unix_ns"] + start * SECOND
    data = make_pprof({("a",): [1, 9]}, start_unix_ns=began, duration_ns=4 * SECOND)
    cube = beside(trace, [read_pprof(written(tmp_path, data))])
    assert words in cube.notes[-1]
    if start == 0:
        assert "before" not in cube.notes[-1]


def test_a_wall_clock_that_was_set_is_said_beside_what_is_placed_by_it(tmp_path: Path) -> None:
    clock = META["clock"] | {"end_unix_ns": META["clock"]["end_unix_ns"] + 60 * SECOND}
    data = make_pprof({("a",): [1, 9]}, start_unix_ns=clock["start_unix_ns"], duration_ns=SECOND)
    stored = _stored(0, "shop", data)
    trace = Trace.open(make_trace(tmp_path, [{}], meta={"clock": clock}, profiles=[stored]))
    said = "profiles from files of the time after that are placed 60.0 s too late"
    own, _ = stored_profiles(trace)
    assert not any(said in note for note in beside(trace, own).notes)
    of_file = read_pprof(written(tmp_path, data))
    assert any(said in note for note in beside(trace, [*own, of_file]).notes)


def test_what_is_counted_at_several_moments_says_so(tmp_path: Path) -> None:
    """Nine goroutines, three times: there were never 27."""
    types = [("goroutine", "count")]
    data = [
        make_pprof({("main",): [9]}, types, start_unix_ns=META["clock"]["start_unix_ns"] + i)
        for i in range(1, 4)
    ]
    rows = [_stored(i, "svc", d) for i, d in enumerate(data, 1)]
    trace = Trace.open(make_trace(tmp_path, [{}], profiles=rows))
    profiles, _ = stored_profiles(trace)
    (said,) = beside(trace, profiles).profiles
    assert "goroutine, 27 of them, added up over 3 profiles" in said.sentence


def _stored(start: int, app: str, data: bytes | None, **more: object) -> dict[str, object]:
    return {
        "ns": start,
        "start_ns": start,
        "end_ns": start + SECOND,
        "source": "push",
        "app": app,
        "labels": '{"__name__": "process_cpu", "region": "eu"}',
        "profile": data,
        **more,
    }


def test_profiles_in_a_trace_are_read_as_those_of_files(tmp_path: Path) -> None:
    once = make_pprof({("a", "b"): [1, 5], ("a",): [1, 2]}, start_unix_ns=1, duration_ns=7)
    again = make_pprof({("b",): [1, 1], ("a", "b"): [1, 6]})
    rows = [
        _stored(2 * SECOND, "svc", once),
        _stored(3 * SECOND, "svc", again),
        _stored(3 * SECOND, "svc", again, labels="[not, labels"),
        _stored(4 * SECOND, "damaged", b"hello"),
        _stored(4 * SECOND, "none", None),
    ]
    meta = {"sources": {"a: profiles": {"refused": {"too slow": 3}}, "profiles": 5}}
    path = make_trace(tmp_path, [{}], profiles=rows, meta=meta)
    found, notes = stored_profiles(Trace.open(path))
    assert [p.where for p in found] == ["svc", "svc{region=eu}"]
    both = found[1]
    assert by_name(both) == {("a", "b"): 11, ("a",): 2, ("b",): 1}
    # When they were taken is what the trace says, on its own clock.
    assert both.start_unix_ns == META["clock"]["start_unix_ns"] + 2 * SECOND
    assert both.duration_ns == 2 * SECOND
    by_time = Counter[int]()
    for (start, _), value in zip(both.windows, both.values, strict=True):
        by_time[start - META["clock"]["start_unix_ns"]] += value
    assert by_time == {2 * SECOND: 7, 3 * SECOND: 7}
    assert notes == [
        "profiles that were not taken in: 3, too slow",
        "a profile in the trace was left out: damaged{region=eu} is not a pprof profile",
    ]


def test_profiles_that_are_too_many_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_pprof({("a",): [1, 5]})
    rows = [_stored(i * SECOND, "svc", data) for i in (1, 2, 3)]
    trace = Trace.open(make_trace(tmp_path, [{}], profiles=[*rows, _stored(1, "none", None)]))
    for room, total, said in (
        (3, 15, []),
        (2, 10, ["1 profile in the trace was left out: together they are more than 0 MB"]),
        (1, 5, ["2 profiles in the trace were left out: together they are more than 0 MB"]),
    ):
        monkeypatch.setattr(stored, "MAX_READ", room * len(data))
        found, notes = stored_profiles(trace)
        assert [p.total for p in found] == [total]
        assert notes == said


def test_profiles_of_more_time_than_fits_are_left_out(tmp_path: Path) -> None:
    half = make_pprof({("a",): [1, 1 << 61]})
    rows = [_stored(i * SECOND, "svc", half) for i in (1, 2, 3)]
    trace = Trace.open(make_trace(tmp_path, [{}], profiles=rows))
    profiles, notes = stored_profiles(trace)
    assert notes == [
        "a profile in the trace was left out: svc{region=eu} has more time than a machine can"
    ]
    assert beside(trace, profiles).profile_rows["value"].tolist() == [1 << 61] * 2


def test_a_part_has_what_ran_for_its_traces_and_what_was_taken_within_it(tmp_path: Path) -> None:
    """Each sample's value is a power of two: their sum tells which were let in."""
    rows = [
        {"end_ns": (2 + i) * SECOND, "wait_ns": SECOND // 2, "trace_id": f"{i:032x}"}
        for i in range(6)
    ]
    labelled = [(("f",), [1, 1 << i], {"trace_id": f"{i:032x}"}) for i in range(7)]
    pushes = [
        _stored(2 * SECOND, "svc", make_pprof({}, labelled=labelled), end_ns=9 * SECOND),
        _stored(4 * SECOND, "svc", make_pprof({("g",): [1, 1 << 10]})),
        _stored(5 * SECOND, "svc", make_pprof({("h",): [1, 1 << 11]})),
    ]
    trace = Trace.open(make_trace(tmp_path, rows, profiles=pushes))
    profiles, _ = stored_profiles(trace)
    whole = beside(trace, profiles)
    assert whole.profile_rows["value"].sum() == (1 << 7) - 1 + (1 << 10) + (1 << 11)
    assert whole.profiles[0].outside == 0
    for start, end, wanted in (
        # Traces that waited in it at any time; the second push is in it whole.
        (3.9, 5.2, 4 + 8 + (1 << 10)),
        (3.4, 5.0, 4 + 8 + (1 << 10)),
        # The first push, and with it a trace that waited nowhere, was taken in it.
        (0.0, 9.0, 127 + (1 << 10) + (1 << 11)),
        (0.0, 4.7, 1 + 2 + 4 + 8),
        (4.7, 10.0, 8 + 16 + 32 + (1 << 11)),
    ):
        part = Stretch(int(start * SECOND), int(end * SECOND))
        cube = beside(trace, profiles, part)
        assert cube.profile_rows["value"].sum() == wanted, (start, end)
        assert cube.profiles[0].outside == cube.profiles[0].total - wanted


def test_a_saved_push_is_its_profiles(tmp_path: Path) -> None:
    request = push_pb2.PushRequest()  # type: ignore[attr-defined]
    for app in ("one", "two"):
        series = request.series.add()
        series.labels.add(name="service_name", value=app)
        series.samples.add(raw_profile=make_pprof({(app,): [1, 5]}))
    where = written(tmp_path, gzip.compress(request.SerializeToString()))
    assert [p.where for p in read_profiles(where)] == [f"{where}: one", f"{where}: two"]
    with pytest.raises(ProfileError, match="not a pprof"):
        read_profiles(written(tmp_path, b"hello"))
    page = tmp_path / "page.html"
    trace = make_trace(tmp_path, [{}], profiles=[_stored(SECOND, "</script>", make_pprof({}))])
    assert run(["report", str(trace), "-o", str(page), "--pprof", where]) == 5
    written(tmp_path, gzip.compress(request.SerializeToString()))
    assert run(["report", str(trace), "-o", str(page), "--pprof", where]) == 0
    assert page.read_text().count("</script>") == page.read_text().count("<script")


def test_own_samples_nest_native_frames_where_they_belong(tmp_path: Path) -> None:
    """Python function, then what it called; without the interpreter and what no mapping covers."""
    code = {
        1: ("main", "python", "svc.py"),
        2: ("_PyEval_EvalFrameDefault", "native", "python3.12"),
        3: ("deflate", "native", "libz.so.1"),
        4: ("libcrypto.so.3+0x10", "native", "libcrypto.so.3"),
        5: ("libcrypto.so.3+0x20", "native", "libcrypto.so.3"),
        6: ("[unknown]", "native", ""),
    }
    frames = [
        {"space": "x", "pid": 100, "address": a, "name": n, "language": lang, "module": module}
        for a, (n, lang, module) in code.items()
    ]
    walks = {1: [1], 10: [2, 6, 3], 11: [3, 2, 6], 12: [4, 6, 2], 13: [5], 14: [6], 15: [3, 4]}
    stacks = [
        {"stack_id": i, "space": "x", "pid": 100, "addresses": walk} for i, walk in walks.items()
    ]
    samples = [
        {"ns": i, "source": "cpu", "tid": 100, "weight_ns": 1 << i, "stack_user": user,
         "stack_runtime": None if user == 15 else 1}
        for i, user in enumerate((10, 11, 12, 13, 14, 15, None))
    ]  # fmt: skip
    samples += [{"ns": 9, "source": "wall", "weight_ns": 1 << 9}]
    path = make_trace(tmp_path, [{}], stacks=stacks, frames=frames, samples=samples)
    trace = Trace.open(path)
    cube = build_cube(trace)
    profile = cpu_profile(trace, cube)
    assert profile
    assert profile.on_cpu
    assert by_name(profile) == {
        ("main (svc.py)",): 1 + 64,
        ("main (svc.py)", "deflate"): 2,
        ("main (svc.py)", "[libcrypto.so.3]"): 4 + 8,
        ("main (svc.py)", "[unknown]"): 16,
        ("[libcrypto.so.3]", "deflate"): 32,
    }
    merged = beside(trace, [profile])
    assert merged.frame_kinds[merged.frames.index("main (svc.py)")] == "python"
    (window,) = set(merged.profile_rows["window"].tolist())
    assert merged.profile_windows[window] == (0, cube.bin_ns)


def test_profiles_are_of_the_time_in_which_something_was_recorded(tmp_path: Path) -> None:
    """Ten seconds, of which three are between two recordings; the samples are 1 ms of them."""
    parts = [
        {"trace": "a", "start_ns": 0, "end_ns": 3 * SECOND},
        {"trace": "b", "start_ns": 6 * SECOND, "end_ns": 10 * SECOND},
    ]
    samples = [
        {"ns": ns * SECOND, "source": "cpu", "tid": 100, "weight_ns": 500_000} for ns in (1, 7)
    ]
    meta = {"merged": parts}
    trace = Trace.open(make_trace(tmp_path, [{"end_ns": SECOND}], samples=samples, meta=meta))
    whole = Whole(trace)
    (own,) = whole.cube().profiles
    assert own.sentence.endswith("1.00 ms of cpu in 7.00 s")
    stretch = Stretch(2 * SECOND, 8 * SECOND)
    part = whole.part(stretch.start_ns, stretch.end_ns, 10)
    (own,) = whole.with_profiles(part, stretch).profiles
    assert own.sentence.endswith("500 us of cpu in 3.00 s")
    began = META["clock"]["start_unix_ns"]
    for start, length, said in (
        (2, 5, "in 5.00 s, 3.00 s of them when nothing was recorded"),
        (4, 1, "in 1.00 s, all of it when nothing was recorded"),
        (7, 2, "in 2.00 s"),
    ):
        taken = {"start_unix_ns": began + start * SECOND, "duration_ns": length * SECOND}
        profile = parse_pprof(make_pprof({("a",): [1, 9]}, **taken), "cpu.pb")
        (other,) = Whole(trace, [profile]).cube().profiles
        assert other.sentence.endswith(said)


def test_whose_samples_are_is_looked_up_once_for_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ["a" * 31 + "1", "b" * 31 + "2"]
    waits = [{"end_ns": (1 + i) * SECOND, "trace_id": x, "comm": x[0]} for i, x in enumerate(ids)]
    samples = [
        {"ns": (1 + i) * SECOND, "source": "cpu", "tid": 100, "weight_ns": 7 + i, "trace_id": x}
        for i, x in enumerate(ids)
    ]
    trace = Trace.open(make_trace(tmp_path, waits, samples=samples))
    lookups = []

    def counted(*arguments: Any) -> Owners:
        lookups.append(arguments)
        return Owners(*arguments)

    monkeypatch.setattr("sltrace.analysis.part.Owners", counted)
    whole = Whole(trace)
    for i, trace_id in enumerate(ids):
        start, end = (1 + i) * SECOND, (2 + i) * SECOND
        cube = whole.with_profiles(whole.part(start, end, 10), Stretch(start, end))
        assert cube.profile_rows["value"].tolist() == [7 + i]
        (owner,) = cube.profile_owners
        assert cube.slow_traces.traces[owner.trace].trace_id == trace_id
    assert len(lookups) == 1
