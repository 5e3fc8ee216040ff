"""pprof profiles read back, against the writers and readers of others."""

from __future__ import annotations

import gzip
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.analysis.cpusamples import cpu_profile
from sltrace.analysis.cube import Cube, build_cube
from sltrace.analysis.cubeowners import Owners
from sltrace.analysis.cubeprofiles import OwnedProfiles, Stretch
from sltrace.analysis.part import Whole, part_of
from sltrace.cli.main import run
from sltrace.export.pprof import write_pprof
from sltrace.profiles import push_pb2
from sltrace.profiles.pprof import Profile, read_pprof
from sltrace.profiles.source import ProfileError
from sltrace.profiles.stored import read_profiles, stored_profiles
from sltrace.trace.reader import Trace
from tests.support.golang import go_command, go_environment, go_program
from tests.support.profiles import make_pprof
from tests.support.traces import META, SECOND, make_trace

BURN = """package main

import (
	"context"
	"os"
	"runtime/pprof"
	"time"
)

//go:noinline
func inner(n int) (s int) {
	for i := 0; i < n; i++ {
		s += i * i % 7
	}
	return
}

//go:noinline
func outer(stop time.Time) (s int) {
	for time.Now().Before(stop) {
		s += inner(10000)
	}
	return
}

func main() {
	f, _ := os.Create(os.Args[1])
	pprof.StartCPUProfile(f)
	outer(time.Now().Add(350 * time.Millisecond))
	for _, end := range []string{"c", "d"} {
		id := "0af7651916cd43dd8448eb211c80319" + end
		labels := pprof.Labels("trace_id", id, "span_id", id[:16])
		pprof.Do(context.Background(), labels, func(ctx context.Context) {
			outer(time.Now().Add(200 * time.Millisecond))
			go func() { select {} }()
		})
	}
	pprof.StopCPUProfile()
	f.Close()
	g, _ := os.Create(os.Args[2])
	pprof.Lookup("goroutine").WriteTo(g, 0)
	g.Close()
}
"""


def by_name(profile: Profile) -> dict[tuple[str, ...], int]:
    sums: Counter[tuple[str, ...]] = Counter()
    for stack, value in zip(profile.stacks, profile.values, strict=True):
        sums[tuple(profile.frames[f].name for f in stack)] += value
    return sums


def beside(trace: Trace, profiles: list[Profile], part: Stretch | None = None) -> Cube:
    cube = build_cube(part_of(trace, part.start_ns, part.end_ns) if part else trace)
    owners = Owners(trace, (x for p in profiles for x in p.labels))
    return OwnedProfiles(trace, profiles, owners).beside(cube, part)


def by_trace(profile: Profile) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for labels, value in zip(profile.labels, profile.values, strict=True):
        sums[labels.trace_id] += value
    return sums


def written(folder: Path, data: bytes) -> str:
    path = folder / "profile.pb"
    path.write_bytes(data)
    return str(path)


def test_what_export_writes_comes_back(tmp_path: Path) -> None:
    stacks = [
        {"stack_id": i, "space": "kernel", "pid": 0, "addresses": [10 + i, 5]} for i in (1, 2)
    ]
    frames = [
        {"space": "kernel", "pid": 0, "address": a, "name": f"f{a}", "language": "kernel"}
        for a in (5, 11, 12)
    ]
    waits = [{"wait_ns": 1000 + i, "stack_kernel": 1 + i % 2} for i in range(100)]
    trace = Trace.open(make_trace(tmp_path, waits, stacks=stacks, frames=frames))
    with (tmp_path / "out.pb.gz").open("wb") as out:
        write_pprof(trace, out)
    profile = read_pprof(str(tmp_path / "out.pb.gz"))
    assert profile.measure == "wait"
    (whole,) = trace.sql("SELECT sum(wait_ns)::BIGINT AS ns FROM waits").to_pylist()
    assert profile.total == whole["ns"]
    assert by_name(profile) == {
        ("f5", f"f{11 + odd}"): sum(1000 + i for i in range(odd, 100, 2)) for odd in (0, 1)
    }
    assert profile.start_unix_ns == META["clock"]["start_unix_ns"]
    assert profile.duration_ns == 10 * SECOND


def test_a_profile_of_go_by_its_own_reader(tmp_path: Path) -> None:
    folder = tmp_path / "burn"
    folder.mkdir()
    (folder / "main.go").write_text(BURN)

    def ran(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=go_environment(), check=True, capture_output=True, text=True,
            timeout=240,
        ).stdout  # fmt: skip

    ran(go_program(folder), "cpu.pb.gz", "goroutine.pb.gz")
    profile = read_pprof(str(tmp_path / "cpu.pb.gz"))
    assert profile.measure == "cpu"
    flat: Counter[str] = Counter()
    cum: Counter[str] = Counter()
    for stack, ns in by_name(profile).items():
        flat[stack[-1]] += ns
        cum.update(dict.fromkeys(stack, ns))
    options = ("-top", "-unit=ns", "-nodecount=1000", "-nodefraction=0")
    top = ran(go_command(), "tool", "pprof", *options, "cpu.pb.gz")
    lines = re.findall(r"^\s*(\d+)(?:ns)?\s+\S+%\s+\S+%\s+(\d+)(?:ns)?\s+\S+%\s+(.+)$", top, re.M)
    assert len(lines) >= 3
    for mine, column in ((flat, 0), (cum, 1)):
        theirs = {line[2].removesuffix(" (inline)"): int(line[column]) for line in lines}
        assert theirs == {name: mine[name] for name in cum}
    assert cum["main.outer"] > profile.total / 2
    assert all(f.file.endswith((".go", ".s")) for f in profile.frames)
    goroutines = read_pprof(str(tmp_path / "goroutine.pb.gz"))
    assert (goroutines.measure, goroutines.unit, goroutines.on_cpu) == ("goroutine", "count", False)
    assert profile.on_cpu
    for mine, file in ((profile, "cpu.pb.gz"), (goroutines, "goroutine.pb.gz")):
        assert by_trace(mine) == raw_by_trace(ran(go_command(), "tool", "pprof", "-raw", file))
        assert len(by_trace(mine)) == 3
    assert by_trace(goroutines)["0af7651916cd43dd8448eb211c80319d"] == 1
    assert {x.span_id for x in profile.labels} == {"", "0af7651916cd43dd"}


def raw_by_trace(text: str) -> dict[str, int]:
    """Last value by trace id, of what `go tool pprof -raw` prints."""
    sums: Counter[str] = Counter()
    samples = re.findall(r"^\s+([\d ]+): [\d ]+$\n((?:^\s+\w+:\[.*$\n)*)", text, re.M)
    for values, labels in samples:
        found = re.search(r"trace_id:\[(\w+)\]", labels)
        sums[found[1] if found else ""] += int(values.split()[-1])
    return sums


def test_samples_that_stand_for_time(tmp_path: Path) -> None:
    data = make_pprof({("a",): [3]}, [("samples", "count")], period=("cpu", "milliseconds", 10))
    profile = read_pprof(written(tmp_path, data))
    assert (profile.measure, profile.unit, profile.on_cpu) == ("cpu", "ns", True)
    assert by_name(profile) == {("a",): 30_000_000}


def test_waiting_is_not_running(tmp_path: Path) -> None:
    types = [("contentions", "count"), ("delay", "nanoseconds")]
    assert not read_pprof(written(tmp_path, make_pprof({("a",): [1, 5]}, types))).on_cpu


A, B, C = ("4bf92f3577b34da6a3ce929d0e0e473" + digit for digit in "67a")


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


def test_the_default_type_and_its_unit(tmp_path: Path) -> None:
    types = [("contentions", "count"), ("delay", "microseconds")]
    profile = read_pprof(written(tmp_path, make_pprof({("a", "b"): [3, 7], ("a",): [1, 0]}, types)))
    assert profile.measure == "delay"
    assert by_name(profile) == {("a", "b"): 7000}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not a pprof"),
        (b"hello, this is text", "is not a pprof"),
        (b"\x1f\x8b damaged", "is damaged"),
        (gzip.compress(b"x" * 1000, mtime=0)[:20], "is damaged"),
        (make_pprof({("a",): [5]}, [("space", "bytes")]), "no time, only space in bytes"),
        (make_pprof({("a",): [1, 2**62], ("b",): [1, 2**62]}), "more time than"),
    ],
)
def test_what_is_not_a_profile_of_time(tmp_path: Path, data: bytes, complaint: str) -> None:
    with pytest.raises(ProfileError, match=complaint):
        read_pprof(written(tmp_path, data))


@given(st.data())
def test_damage_is_an_error_or_a_profile(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sound = make_pprof({("a", "b"): [1, 5], ("a", "c"): [2, 6]})
    bad = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 5))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    where = written(tmp_path_factory.getbasetemp(), bytes(bad))
    try:
        profile = read_pprof(where)
    except ProfileError:
        return
    assert all(value > 0 for value in profile.values)
    assert all(0 <= f < len(profile.frames) for stack in profile.stacks for f in stack)


class _Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/debug/pprof/profile?seconds=1"
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(gzip.compress(make_pprof({("main", "work"): [1, 5 * SECOND]})))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_from_a_service(service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{service}/debug/pprof/profile?seconds=1"
    assert by_name(read_pprof(url)) == {("main", "work"): 5 * SECOND}
    trace = make_trace(tmp_path, [{}])
    page = tmp_path / "page.html"
    assert run(["report", str(trace), "--pprof", url, "-o", str(page)]) == 0
    assert "5 s of cpu" in capsys.readouterr().err
    assert run(["report", str(trace), "--pprof", f"{service}/x", "-o", str(page), "-f"]) == 5
    assert "answered 404" in capsys.readouterr().err


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot read profile"):
        read_pprof(str(tmp_path / "none"))
    # Port 9 (discard) of loopback: nothing listens there.
    with pytest.raises(ProfileError, match="cannot fetch"):
        read_pprof("http://127.0.0.1:9/debug/pprof/profile")


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
        (0, "in 4 s"),
        (8, "2 s of them before or after"),
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
