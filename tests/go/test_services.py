"""A service that nobody here wrote, recorded under load: Caddy, stripped, from its own wheel."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.programs import ROOT
from tests.support.recorder import recorder

pytestmark = pytest.mark.bpf

CADDY = ROOT / "build" / "caddy" / "bin" / "caddy"


@dataclass(frozen=True)
class Caddy:
    pid: int
    port: int
    admin: int


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as trying:
            if not trying.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


@contextmanager
def caddy(folder: Path, *, traced: bool = False) -> Iterator[Caddy]:
    """Answers "hello"; traced: by way of a second site, a span each, which it writes to spans."""
    port, admin, behind = free_port(), free_port(), free_port()
    config = f"{{\n admin localhost:{admin}\n auto_https off\n}}\n"
    if traced:
        config += f"http://127.0.0.1:{port} {{\n tracing\n reverse_proxy 127.0.0.1:{behind}\n}}\n"
    config += f'http://127.0.0.1:{behind if traced else port} {{\n respond "hello"\n}}\n'
    (folder / "Caddyfile").write_text(config)
    with (
        open(folder / "log", "wb") as log,
        open(folder / "spans", "wb") as spans,
        subprocess.Popen(
            [CADDY, "run", "--config", folder / "Caddyfile"],
            stdout=spans,
            stderr=log,
            env={
                **os.environ,
                "HOME": str(folder),
                "OTEL_TRACES_EXPORTER": "console",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                "OTEL_BSP_MAX_QUEUE_SIZE": "65536",
            },
        ) as process,
    ):
        try:
            wait_for(port)
            yield Caddy(process.pid, port, admin)
        finally:
            process.kill()


def ask(port: int, seconds: float) -> tuple[int, int]:
    """Good and bad answers to 8 connections that ask Caddy all the time."""
    return exchange(port, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n", b"hello", seconds)


def exchange(
    port: int, request: str, wanted: bytes, seconds: float, *, greets: bool = False
) -> tuple[int, int]:
    """Good and bad answers to 8 connections that send a request all the time."""
    answers: list[bool] = []

    def client() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(60)
            if greets:
                _answer(connection, b"\n")
            stop = time.monotonic() + seconds
            while time.monotonic() < stop:
                connection.sendall(request.encode())
                answers.append(_answer(connection, wanted).endswith(wanted))

    clients = [threading.Thread(target=client) for _ in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return sum(answers), len(answers) - sum(answers)


def _answer(connection: socket.socket, end: bytes) -> bytes:
    """What comes until it ends so, or nothing more comes: an answer may come in parts."""
    answer = b""
    with contextlib.suppress(OSError):
        while not answer.endswith(end) and (part := connection.recv(4096)):
            answer += part
    return answer


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_caddy_is_recorded_and_unharmed(tmp_path: Path, end: signal.Signals) -> None:
    """Its own profile has the goroutines the recording saw; no answer is lost or wrong."""
    with caddy(tmp_path) as service:
        options = ("--pid", service.pid, "--go-level", 2)
        with recorder(tmp_path / "c.slt", *options) as recording:
            good, bad = ask(service.port, 1.5)
            url = f"http://localhost:{service.admin}/debug/pprof/goroutine?debug=1"
            with urllib.request.urlopen(url, timeout=10) as answer:
                profile = answer.read().decode()
            recording.end(end)
        assert (good > 100, bad) == (True, 0)
        good, bad = ask(service.port, 0.5)
        assert (good > 20, bad) == (True, 0)
    trace = recording.trace
    if end == signal.SIGKILL:
        # What the recorder had written stays readable.
        assert not trace.meta["finished"]
        assert trace.sql("SELECT count(*) AS n FROM waits WHERE kind = 'goroutine'")["n"][0].as_py()
        return
    target = trace.sql("SELECT version, level, why FROM targets WHERE runtime = 'go'").to_pylist()[
        0
    ]
    assert target["version"].startswith("go1.26")
    assert (target["level"], target["why"]) == (2, "")
    reasons = {
        r["reason"]: r["n"]
        for r in trace.sql(
            "SELECT reason, count(*) AS n FROM waits WHERE kind = 'goroutine' GROUP BY ALL"
        ).to_pylist()
    }
    assert reasons["IO wait"] > 10
    names = {r["name"] for r in trace.sql("SELECT DISTINCT name FROM frames").to_pylist()}
    assert "net/http.(*conn).serve" in names
    total = re.search(r"total (\d+)", profile)
    assert total
    seen = trace.sql(
        "SELECT sum(count)::BIGINT AS n FROM samples GROUP BY ns ORDER BY ns"
    ).to_pylist()
    # The runtime's own goroutines are not in the profile; connections come and go.
    assert int(total[1]) // 2 <= max(s["n"] for s in seen) <= int(total[1]) + 40


def test_trace_ids_of_caddys_own_spans(tmp_path: Path) -> None:
    """Its OpenTelemetry SDK says which span was open when: none is wrong, 95 % are tagged."""
    with caddy(tmp_path, traced=True) as service:
        with recorder(tmp_path / "s.slt", "--pid", service.pid, "--go-level", 3) as recording:
            good, bad = ask(service.port, 1.0)
        assert (good > 100, bad) == (True, 0)
        # Spans are exported in batches, ten a second.
        time.sleep(0.5)
    trace = recording.trace
    clock = trace.meta["clock"]
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for line in (tmp_path / "spans").read_text().splitlines():
        said = json.loads(line)
        ids = (said["SpanContext"]["TraceID"], said["SpanContext"]["SpanID"])
        begin, end = (_unix_ns(said[name]) for name in ("StartTime", "EndTime"))
        spans[ids] = (begin, end)
    assert len(spans) == good
    rows = trace.sql(
        f"SELECT trace_id, span_id, end_ns + {clock['start_unix_ns'] - clock['start_ns']} AS at, "
        "id_source FROM waits WHERE trace_id IS NOT NULL AND kind = 'goroutine'"
    ).to_pylist()
    slack = 2_000_000
    for row in rows:
        assert row["id_source"] == "otel_sdk"
        begin, end = spans[row["trace_id"], row["span_id"]]
        assert begin - slack <= row["at"] <= end + slack
    seen = {row["trace_id"] for row in rows}
    assert len(seen) >= 0.95 * len(spans)
    # What waits for the site behind is within a span; the first ones teach where it is.
    within = trace.sql(
        "SELECT count(trace_id) AS tagged, count(*) AS n FROM waits JOIN stacks ON stack_runtime = "
        "stack_id WHERE kind = 'goroutine' AND list_has_any(addresses, (SELECT list(address) FROM "
        "frames WHERE name LIKE '%reverseproxy.(*Handler).ServeHTTP'))"
    ).to_pylist()[0]
    assert within["n"] > 100
    assert within["tagged"] >= 0.95 * within["n"]


def _unix_ns(text: str) -> int:
    """Of an RFC 3339 time of up to nine decimals."""
    whole, _, part = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int(part.ljust(9, "0") or 0)


OLD_SERVICES = {
    "nats-server": ("usr/sbin/nats-server", "-a 127.0.0.1 -p {port} --profile {profile}"),
    "etcd-server": (
        "usr/bin/etcd",
        "--enable-pprof --data-dir {folder} --listen-client-urls http://127.0.0.1:{port} "
        "--advertise-client-urls http://127.0.0.1:{port} --listen-peer-urls "
        "http://127.0.0.1:{other} --log-outputs stderr",
    ),
}
"""Of Debian: where in its package, and options."""


@pytest.mark.parametrize("name", OLD_SERVICES)
def test_services_of_an_old_go_are_read(tmp_path: Path, name: str) -> None:
    """Debian's, of Go 1.19: no probe fits there, but its goroutines are known all the same."""
    path, options = OLD_SERVICES[name]
    port, profile, other = free_port(), free_port(), free_port()
    line = options.format(port=port, profile=profile, folder=tmp_path / "data", other=other)
    with (
        open(tmp_path / "log", "wb") as log,
        subprocess.Popen(
            [ROOT / "build" / name / path, *line.split()], stdout=log, stderr=log
        ) as process,
    ):
        try:
            wait_for(port)
            with recorder(tmp_path / "o.slt", "--pid", process.pid) as recording:
                if name == "nats-server":
                    good, bad = exchange(port, "PING\r\n", b"PONG\r\n", 1.2, greets=True)
                else:
                    profile = port
                    request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
                    good, bad = exchange(port, request, b'{"health":"true"}', 1.2)
                url = f"http://127.0.0.1:{profile}/debug/pprof/goroutine?debug=1"
                with urllib.request.urlopen(url, timeout=10) as answer:
                    total = re.search(r"total (\d+)", answer.read().decode())
                time.sleep(1.1)
        finally:
            process.kill()
    assert (good > 100, bad) == (True, 0)
    (target,) = recording.trace.sql("SELECT * FROM targets WHERE runtime = 'go'").to_pylist()
    if not target["version"].startswith("go1.19"):
        pytest.skip(f"here {name} is of {target['version']}: Go 1.19 is NOT TESTED with it")
    assert target["level"] == 0
    assert "no runtime.(*timeHistogram).record" in target["why"]
    read = recording.trace.sql(
        "SELECT sum(count)::BIGINT AS n FROM runtime_histograms WHERE name LIKE '/sched/lat%'"
    ).to_pylist()
    assert read[0]["n"] > 20
    assert total
    seen = recording.trace.sql(
        "SELECT sum(count)::BIGINT AS n FROM samples GROUP BY ns ORDER BY ns"
    ).to_pylist()
    # The runtime's own goroutines are not in the profile; connections come and go.
    assert int(total[1]) - 16 <= max(s["n"] for s in seen) <= int(total[1]) + 40
    joined = recording.trace.sql(
        "SELECT count(goid) AS goids, count(held_p) AS ps, max(held_p) AS p FROM waits"
    ).to_pylist()[0]
    assert joined["goids"] > 20
    assert 0 <= joined["p"] < (os.cpu_count() or 1)
    names = {r["name"] for r in recording.trace.sql("SELECT name FROM frames").to_pylist()}
    assert any(
        "nats-server/server.(*client).readLoop" in n or "net/http.(*conn).serve" in n for n in names
    )
