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

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.cli.main import run
from sltrace.export.pprof import write_pprof
from sltrace.profiles import pprof
from sltrace.profiles.pprof import Profile
from sltrace.profiles.source import ProfileError
from sltrace.trace.reader import Trace
from tests.support.golang import go_command, go_environment, go_program
from tests.support.profiles import by_name, make_pprof, message_of, read_pprof, written
from tests.support.traces import META, SECOND, make_trace

BURN = """package main

import (
	"context"
	"os"
	"runtime/pprof"
	"syscall"
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
func outer(d time.Duration) (s int) {
	for stop := used() + d; used() < stop; {
		s += inner(10000)
	}
	return
}

func used() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano())
}

func main() {
	f, _ := os.Create(os.Args[1])
	pprof.StartCPUProfile(f)
	outer(350 * time.Millisecond)
	for _, end := range []string{"c", "d"} {
		id := "0af7651916cd43dd8448eb211c80319" + end
		labels := pprof.Labels("trace_id", id, "span_id", id[:16])
		pprof.Do(context.Background(), labels, func(ctx context.Context) {
			outer(200 * time.Millisecond)
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


def by_trace(profile: Profile) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for labels, value in zip(profile.labels, profile.values, strict=True):
        sums[labels.trace_id] += value
    return sums


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

    # The last that comes with pprof built: to build it takes 30 s of a CPU.
    reader = "1.24.11"

    def ran(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=go_environment(reader), check=True, capture_output=True,
            text=True, timeout=240,
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
    top = ran(go_command(reader), "tool", "pprof", *options, "cpu.pb.gz")
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
    for taken, file in ((profile, "cpu.pb.gz"), (goroutines, "goroutine.pb.gz")):
        assert by_trace(taken) == raw_by_trace(
            ran(go_command(reader), "tool", "pprof", "-raw", file)
        )
        assert len(by_trace(taken)) == 3
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


def test_a_small_profile_of_very_deep_stacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of a sample may stand for many inlined functions."""
    monkeypatch.setattr(pprof, "_MAX_FRAMES", 100)
    deep = message_of(make_pprof({(f"f{i}", "b"): [1, 5] for i in range(49)}))
    assert len(read_pprof(written(tmp_path, deep.SerializeToString())).stacks) == 49
    inner = deep.location[1]
    inner.line.extend([inner.line[0]] * 9)
    with pytest.raises(ProfileError, match="more than 100 frames in its stacks"):
        read_pprof(written(tmp_path, deep.SerializeToString()))


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
    assert "5.00 s of cpu" in capsys.readouterr().err
    assert run(["report", str(trace), "--pprof", f"{service}/x", "-o", str(page), "-f"]) == 5
    assert "answered 404" in capsys.readouterr().err


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot read profile"):
        read_pprof(str(tmp_path / "none"))
    # Port 9 (discard) of loopback: nothing listens there.
    with pytest.raises(ProfileError, match="cannot fetch"):
        read_pprof("http://127.0.0.1:9/debug/pprof/profile")
