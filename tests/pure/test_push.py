"""What is pushed to the recorder: taken if it is a profile of time, refused and counted if not."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sltrace.capture.profiles import receiver
from sltrace.capture.profiles import source as profiles
from sltrace.capture.profiles.source import ProfileSource
from sltrace.cli.address import address
from sltrace.errors import OutputError, UsageError
from sltrace.profiles import push_pb2 as pb
from sltrace.profiles.pprof import parse_pprof
from sltrace.profiles.push import MAX_PUSH, from_ingest, from_push, of_file
from sltrace.profiles.source import ProfileError
from tests.support.profiles import make_pprof, message_of

PUSH = "/push.v1.PusherService/Push"
CPU = make_pprof(
    {("main", "burn"): [3, 30_000_000]}, start_unix_ns=1_700_000_000_000_000_000, duration_ns=10**10
)
MEMORY = make_pprof({("main",): [4096]}, [("inuse_space", "bytes")])
SECOND = 10**9


def push(*series: tuple[dict[str, str], bytes]) -> bytes:
    """The body of a push, packed."""
    # Generated code has no types.
    request: Any = pb.PushRequest()  # type: ignore[attr-defined]
    for labels, raw in series:
        added = request.series.add()
        for name, value in labels.items():
            added.labels.add(name=name, value=value)
        added.samples.add(raw_profile=raw)
    return gzip.compress(request.SerializeToString())


def test_a_push_is_its_profiles_with_their_labels() -> None:
    labels = {"service_name": "svc", "region": "eu", "__name__": "process_cpu"}
    found, refused = from_push(push((labels, CPU), (labels, MEMORY), ({}, gzip.compress(CPU))))
    assert [str(r) for r in refused] == [
        "a profile of something other than time; point a pyroscope-io client here, with its CPU "
        "profiles"
    ]
    first, second = found
    assert (first.app, first.measure, first.samples) == ("svc", "cpu", 1)
    assert (first.start_unix_ns, first.duration_ns) == (1_700_000_000_000_000_000, 10**10)
    assert json.loads(first.labels) == {"region": "eu", "__name__": "process_cpu"}
    assert (second.app, second.labels) == ("unnamed", "{}")
    assert first.data == second.data == CPU


@pytest.mark.parametrize(
    ("types", "default", "period"),
    [
        ([("wall", "nanoseconds"), ("cpu", "nanoseconds")], "wall", None),
        ([("cpu", "milliseconds"), ("wall", "nanoseconds")], "", None),
        ([("samples", "count")], "", ("cpu", "nanoseconds", 10_000_000)),
        ([("goroutine", "count")], "", None),
        ([("contentions", "count"), ("delay", "nanoseconds")], "contentions", None),
    ],
)
def test_what_is_measured_is_what_is_read(
    types: list[tuple[str, str]], default: str, period: tuple[str, str, int] | None
) -> None:
    message = message_of(make_pprof({("a",): [1] * len(types)}, types, period=period))
    if default:
        message.default_sample_type = [*message.string_table].index(default)
    data = message.SerializeToString()
    assert from_ingest("name=svc", data).measure == parse_pprof(data, "svc").measure


def test_an_older_client_says_who_and_when_in_the_address() -> None:
    query = (
        "name=svc.x{region=eu,zone=}&from=1700000000&until=1700000010&format=pprof&spyName=pyspy"
    )
    found = from_ingest(query, gzip.compress(make_pprof({("a",): [1, 2]})))
    assert (found.app, json.loads(found.labels)) == ("svc.x", {"region": "eu", "zone": ""})
    assert (found.start_unix_ns, found.duration_ns) == (1_700_000_000 * SECOND, 10 * SECOND)
    # What the profile says itself counts more.
    assert from_ingest("name=a&from=1&until=2", CPU).start_unix_ns == 1_700_000_000 * SECOND


def form(files: dict[str, bytes]) -> bytes:
    """The body of a form, as Go's mime/multipart writes it."""
    parts = [
        f'--7a0c\r\nContent-Disposition: form-data; name="{name}"; filename="profile.pprof"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        for name, content in files.items()
    ]
    return b"\r\n".join([*parts, b"--7a0c--\r\n"])


def test_gos_client_sends_a_form() -> None:
    # A line end within the profile is not the form's.
    undated = make_pprof({("a\r\n--",): [1, 2]})
    body = form({"profile": gzip.compress(undated), "sample_type_config": b"{}"})
    query = "name=svc{region=eu}&from=1700000000000000000&until=1700000015000000001&spyName=gospy"
    found = from_ingest(query, body)
    assert (found.app, json.loads(found.labels), found.data) == ("svc", {"region": "eu"}, undated)
    assert (found.start_unix_ns, found.duration_ns) == (1_700_000_000 * SECOND, 15 * SECOND + 1)
    assert from_ingest("name=svc", form({"profile": undated})).data == undated
    for files, complaint in (
        ({"profile": CPU, "prev_profile": CPU}, "counts from the start of its program"),
        ({"other": CPU}, "a form without a profile"),
        ({"profile": MEMORY}, "other than time"),
    ):
        with pytest.raises(ProfileError, match=complaint):
            from_ingest("name=svc", form(files))
    for noise in (b"--", b"--\r\n", b"--a\r\n\r\n", b"--7a0c" * 99):
        with pytest.raises(ProfileError):
            from_ingest("name=svc", noise)


@pytest.mark.parametrize(
    ("query", "body", "complaint"),
    [
        ("format=folded", b"a;b 1", "another format than pprof"),
        ("name=a", b"", "not a pprof profile"),
        ("name=a", b"\x1f\x8bdamaged", "is damaged"),
        ("name=a", MEMORY, "other than time"),
        ("name=a", gzip.compress(bytes(20 << 20), 1), "more than 8 MiB"),
        ("&".join(f"a{i}=1" for i in range(100)), CPU, "too many parameters"),
    ],
)
def test_what_is_no_profile_of_time_is_refused(query: str, body: bytes, complaint: str) -> None:
    with pytest.raises(ProfileError, match=complaint):
        from_ingest(query, body)


def test_bombs_within_a_push_share_its_limit() -> None:
    bomb = gzip.compress(bytes(MAX_PUSH - 100), 1)
    found, refused = from_push(push(*[({}, bomb)] * 5, ({}, CPU)))
    assert [r.message for r in refused] == ["not a pprof profile", "more than a push may have"]
    assert not found
    with pytest.raises(ProfileError, match="more than 64 profiles"):
        from_push(push(*[({}, CPU)] * 65))


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(1, 40))
def test_no_bytes_do_any_harm(noise: bytes, at: int, length: int) -> None:
    whole = gzip.decompress(push(({"service_name": "svc"}, CPU)))
    for body in (noise, whole[:at], whole[:at] + noise + whole[at + length :]):
        try:
            found, _ = from_push(body)
        except ProfileError:
            continue
        assert all(len(p.app) <= 256 and len(p.data) <= len(body) for p in found)


def test_files_of_profiles_and_of_pushes(tmp_path: Path) -> None:
    (tmp_path / "cpu.pb.gz").write_bytes(gzip.compress(CPU))
    (tmp_path / "push").write_bytes(push(({"service_name": "svc"}, CPU)))
    (tmp_path / "text").write_bytes(b"hello")
    assert [p.app for p in of_file(tmp_path / "cpu.pb.gz")] == ["cpu.pb.gz"]
    assert [p.app for p in of_file(tmp_path / "push")] == ["svc"]
    for name, complaint in (("text", "not a pprof"), ("none", "No such file"), (".", "cannot")):
        with pytest.raises(ProfileError, match=complaint) as raised:
            of_file(tmp_path / name)
        assert "give a pprof file" in raised.value.hint


# ---- over the wire ----


@pytest.fixture
def source() -> Iterator[ProfileSource]:
    """A source that listens."""
    listening = ProfileSource(("127.0.0.1", 0), ())
    listening.attach(None)  # type: ignore[arg-type]
    try:
        yield listening
    finally:
        listening.close()


def port(source: ProfileSource) -> int:
    return int(source.describe()["listened"][1])


def post(source: ProfileSource, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port(source), timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()


def sent(source: ProfileSource, data: bytes) -> bytes:
    """What is answered to raw bytes, until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port(source)), 10) as connection:
        answer = b""
        # It may have had enough before all is sent.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(data)
            while part := connection.recv(4096):
                answer += part
        return answer


def stored(source: ProfileSource) -> list[dict[str, Any]]:
    return [row for _, table in source.rows() for row in table.to_pylist()]


def test_what_is_pushed_is_stored_as_rows(source: ProfileSource) -> None:
    before = time.monotonic_ns()
    assert post(source, PUSH, push(({"service_name": "svc"}, CPU))) == (200, "")
    assert post(source, "/ingest?name=old", CPU) == (200, "")
    first, second = stored(source)
    assert (first["source"], first["app"]) == ("push", "svc")
    assert (second["source"], second["app"]) == ("ingest", "old")
    assert before < first["ns"] <= second["ns"] < time.monotonic_ns()
    assert first["end_ns"] - first["start_ns"] == 10 * SECOND
    # The wall clock of the profile on the recording's own clock.
    began = time.monotonic_ns() + 1_700_000_000 * SECOND - time.time_ns()
    assert first["start_ns"] == pytest.approx(began, abs=SECOND)
    assert first["profile"] == CPU
    assert stored(source) == []
    described = source.describe()
    assert described["received"] == {"push": 1, "ingest": 1}
    assert (described["bytes"], described["refused"]) == (2 * len(CPU), {})


@pytest.mark.parametrize(("start", "duration"), [(2**63 - 1, 2**63 - 1), (-(2**63), 5), (5, -5)])
def test_times_that_cannot_be_are_none(source: ProfileSource, start: int, duration: int) -> None:
    strange = make_pprof({("a",): [1, 2]}, start_unix_ns=start, duration_ns=duration)
    assert post(source, "/ingest?name=a&from=9999999999&until=99999999999", strange) == (200, "")
    (row,) = stored(source)
    assert (row["start_ns"], row["end_ns"]) == (None, None)


def test_what_came_last_is_stored_at_the_end(source: ProfileSource) -> None:
    assert post(source, "/ingest", CPU) == (200, "")
    assert [r["app"] for _, t in source.finish() for r in t.to_pylist()] == ["unnamed"]


def test_strange_clients_are_refused_and_counted(source: ProfileSource) -> None:
    assert post(source, "/other", CPU)[0] == 404
    assert post(source, PUSH, b"hello") == (400, "not a push of profiles")
    assert post(source, PUSH, push(({}, MEMORY)))[0] == 200
    assert post(source, "/ingest", CPU, Origin="http://evil.example") == (403, "from a browser")
    assert sent(source, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405")
    assert sent(source, b"POST / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 411")
    assert sent(source, b"\x16\x03\x01\x02\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert sent(source, b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 4000 + b"\r\n\r\n")[
        9:12
    ] == (b"413")
    assert sent(source, b"x" * 40_000)[9:12] in (b"400", b"")
    assert source.describe()["refused"] == {
        "not a path that profiles are pushed to": 1,
        "not a push of profiles": 1,
        "a profile of something other than time": 1,
        "from a browser": 1,
        "not a POST": 1,
        "no Content-Length": 1,
        "not an HTTP request": 1,
        "the push has more than 8 MiB": 1,
        "headers too long": 1,
    }


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A push whose length is not said before."""
    head = f"POST {PUSH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x;ext\r\n%b\r\n" % (len(p), p) for p in parts) + end


def test_a_push_in_chunks_as_connects_clients_send_it(source: ProfileSource) -> None:
    whole = push(({"service_name": "svc"}, CPU))
    answer = sent(source, chunked(whole[:7], whole[7:]))
    assert answer.startswith(b"HTTP/1.1 200")
    # Without it they take the answer for an error, and send the same again.
    assert b"\r\nContent-Type: application/proto\r\n" in answer
    assert [row["profile"] for row in stored(source)] == [CPU]


def test_strange_chunks_are_refused(source: ProfileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    for data, status in (
        (chunked(b"abc", end=b"-1\r\n\r\n"), b"400"),
        (chunked(b"abc", end=b"\r\n\r\n"), b"400"),
        (chunked(b"abc", end=b"2\r\nabcd\r\n"), b"400"),
        (chunked(b"abc", end=b"f" * 13 + b"\r\n\r\n"), b"400"),
        (chunked(b"abc", end=b"f" * 12 + b"\r\n\r\n"), b"413"),
        (chunked(b"abc", end=b"1" * 40_000), b"400"),
        (chunked(*[bytes(1 << 20)] * 9), b"413"),
    ):
        assert sent(source, data)[9:12] in (status, b""), data[-60:]
    monkeypatch.setattr(receiver, "_MOST_CHUNKS", 9)
    assert sent(source, chunked(*[b"a"] * 10))[9:12] == b"400"
    assert source.describe()["refused"] == {
        "not an HTTP request": 6,
        "the push has more than 8 MiB": 2,
    }


def test_slow_and_many_clients_keep_nobody_out_for_long(
    source: ProfileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for all of them to come first.
    monkeypatch.setattr(receiver, "PATIENCE_S", 6)
    head = b"POST /ingest HTTP/1.1\r\nContent-Length: 100\r\n\r\n"
    slow = []
    for _ in range(receiver.MAX_CONNECTIONS):
        slow.append(socket.create_connection(("127.0.0.1", port(source)), 20))
        slow[-1].sendall(head)
    # One after the other: where more come than are waited for, the kernel lets them try again.
    for _ in range(14):
        assert sent(source, b"") == b""
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        post(source, "/ingest", CPU)
    slow[0].close()
    deadline = time.monotonic() + 20
    while source.describe()["refused"].get("too slow", 0) < receiver.MAX_CONNECTIONS - 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert post(source, "/ingest", CPU) == (200, "")
    for connection in slow[1:]:
        connection.close()
    refused = source.describe()["refused"]
    assert refused["too slow"] + refused.get("connection lost", 0) == receiver.MAX_CONNECTIONS
    assert refused["too many connections"] == 14 + 1


def test_what_is_stored_is_bounded(source: ProfileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "MAX_PENDING", 3 * len(CPU))
    monkeypatch.setattr(profiles, "MAX_STORED", 4 * len(CPU))
    statuses = [post(source, "/ingest", CPU)[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 503]
    assert len(stored(source)) == 3
    statuses = [post(source, "/ingest", CPU)[0] for _ in range(2)]
    assert statuses == [200, 507]


def test_files_are_read_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "cpu.pb").write_bytes(CPU)
    source = ProfileSource(None, (tmp_path / "cpu.pb", tmp_path / "none"))
    rows = [row for _, table in source.finish() for row in table.to_pylist()]
    assert [(r["source"], r["app"]) for r in rows] == [("file", "cpu.pb")]
    assert list(source.describe()["refused"].values()) == [1]


def test_what_cannot_be_a_profile_at_the_end_is_told_at_the_begin(tmp_path: Path) -> None:
    said: list[str] = []

    class Told:
        say = said.append

    def attach(path: Path) -> None:
        ProfileSource(None, (path,)).attach(Told())  # type: ignore[arg-type]

    (tmp_path / "cpu.pb").write_bytes(CPU)
    (tmp_path / "begun").touch()
    (tmp_path / "text").write_text("a profile?")
    attach(tmp_path / "cpu.pb")
    attach(tmp_path / "begun")
    assert not said
    attach(tmp_path / "none")
    assert said == [f"{tmp_path / 'none'} is not there yet: it is read when the recording ends"]
    for path, why in ((tmp_path / "text", "is not a pprof profile"), (tmp_path, "cannot read")):
        with pytest.raises(ProfileError, match=why):
            attach(path)


def test_an_address_that_is_taken(source: ProfileSource) -> None:
    other = ProfileSource(("127.0.0.1", port(source)), ())
    with pytest.raises(OutputError, match="Address already in use"):
        other.attach(None)  # type: ignore[arg-type]


def test_addresses() -> None:
    assert address("4040") == address(":4040") == ("127.0.0.1", 4040)
    assert address("0.0.0.0:0") == ("0.0.0.0", 0)
    assert address("[::1]:4040") == ("::1", 4040)
    for bad in ("", "4040x", "localhost:4040", "127.0.0.1:99999", "127.0.0.1"):
        with pytest.raises(UsageError):
            address(bad)
