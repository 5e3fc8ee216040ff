"""The server of `sltrace serve`: for whoever has the token, however slow, and nobody else."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
import time
from collections.abc import Iterator
from unittest import mock

import pandas as pd
import pytest

from sltrace.cli.web import Server
from tests.pure.test_analysis_latency import random_waits
from tests.support.served import PAGE, ask, get, serving


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, pd.DataFrame]]:
    frame = random_waits(71, 4000)
    with serving(tmp_path_factory.mktemp("served"), frame) as server:
        yield server, frame


def test_the_page_and_its_headers(served: tuple[Server, pd.DataFrame]) -> None:
    server, _ = served
    status, headers, body = get(server, f"/{server.token}/")
    assert (status, body) == (200, PAGE)
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Access-Control-Allow-Origin" not in headers
    assert get(server, f"/{server.token}/", method="HEAD")[2] == b""


def test_without_the_token_there_is_nothing(served: tuple[Server, pd.DataFrame]) -> None:
    server, _ = served
    token = server.token
    for path in (
        "/",
        "",
        "//",
        "/favicon.ico",
        "/api/stat",
        f"/{token[:-1]}/",
        f"/{token}",
        f"/{token}x/",
        f"/{'x' * len(token)}/",
        f"/%2e%2e/{token}/",
        "/%c3%a9/",
    ):
        status, _, body = get(server, path or "*")
        assert (status, body) == (404, b"not found"), path
    for path in (f"/{token}/x", f"/{token}/api", f"/{token}/api/stat/x", f"/{token}/../etc/passwd"):
        assert get(server, path)[0] == 404
    assert get(server, f"/{token}/api/meta")[0] == 404
    assert len(token) >= 32


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1"},
        {"Host": "localhost:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_are_refused_even_with_the_token(
    served: tuple[Server, pd.DataFrame], headers: dict[str, str]
) -> None:
    server, _ = served
    host = {"Host": f"127.0.0.1:{server.server_port}"}
    for path in (f"/{server.token}/", f"/{server.token}/api/stat"):
        status, _, body = get(server, path, host | headers)
        assert status == 403
        assert b"page" not in body.replace(b"its own page only", b"")
    own = {"Origin": f"http://127.0.0.1:{server.server_port}", "Sec-Fetch-Site": "same-origin"}
    assert get(server, f"/{server.token}/", host | own)[0] == 200
    assert get(server, f"/{server.token}/", {"Host": f"localhost:{server.server_port}"})[0] == 200


def test_from_the_network_it_goes_by_addresses_only(
    served: tuple[Server, pd.DataFrame],
) -> None:
    server, _ = served
    port = server.server_port
    assert not server.goes_by(f"192.0.2.1:{port}")
    with Server(server.whole, PAGE, "0.0.0.0", 0) as public:
        port = public.server_port
        assert public.goes_by(f"192.0.2.1:{port}")
        assert public.goes_by(f"localhost:{port}")
        for host in ("evil.example", f"evil.example:{port}", f"192.0.2.1:{port}1", "192.0.2.1"):
            assert not public.goes_by(host)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_it_only_reads(served: tuple[Server, pd.DataFrame], method: str) -> None:
    server, _ = served
    status, headers, _ = get(server, f"/{server.token}/", method=method)
    assert status == 501
    assert "Access-Control-Allow-Origin" not in headers


def test_many_at_once_and_noise(served: tuple[Server, pd.DataFrame]) -> None:
    server, frame = served
    silent = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(20)]
    silent[0].sendall(b"\x16\x03\x01 not http\r\n\r\n")
    silent[1].sendall(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n")
    results: list[int] = []

    def look() -> None:
        found = ask(server, "stat", by="kind")
        results.append(sum(t["count"] for t in found["totals"].values()))

    threads = [threading.Thread(target=look) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [len(frame)] * 12
    for connection in silent:
        connection.close()


def test_too_many_connections_are_turned_away_and_leave_room(
    served: tuple[Server, pd.DataFrame],
) -> None:
    server, _ = served
    silent = [
        socket.create_connection(("127.0.0.1", server.server_port), timeout=20) for _ in range(100)
    ]
    turned_away = select.select(silent, [], [], 20)[0]
    assert turned_away
    assert all(connection.recv(1) == b"" for connection in turned_away)
    for connection in silent:
        connection.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(server, f"/{server.token}/")[0] == 200:
                return
    pytest.fail("none of them made room")


def test_who_asks_a_byte_at_a_time_is_hung_up_on(served: tuple[Server, pd.DataFrame]) -> None:
    server, _ = served
    with (
        mock.patch("sltrace.cli.web._PATIENCE_S", 1),
        socket.create_connection(("127.0.0.1", server.server_port)) as client,
    ):
        client.settimeout(0.1)
        began = time.monotonic()
        gone = False
        while not gone and time.monotonic() < began + 20:
            try:
                client.sendall(b"x")
                gone = client.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                gone = True
    assert gone
    assert time.monotonic() - began > 0.9
    assert get(server, f"/{server.token}/")[0] == 200


def test_who_reads_slowly_gets_all(served: tuple[Server, pd.DataFrame]) -> None:
    """A page over a thin line takes longer than the patience with each piece of it."""
    server, _ = served
    page = bytes(3 << 20)
    # What the kernel takes at once is not waited for. Connections have what the listener has.
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    with (
        mock.patch.object(server, "page", page),
        mock.patch("sltrace.cli.web._Handler.timeout", 3),
        socket.create_connection(("127.0.0.1", server.server_port)) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        host = f"127.0.0.1:{server.server_port}"
        client.sendall(f"GET /{server.token}/ HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        got, began = 0, time.monotonic()
        while piece := client.recv(1 << 16):
            got += len(piece)
            time.sleep(0.1)
    assert time.monotonic() - began > 4.5
    assert got > len(page)


def test_the_port_that_browsers_leave_out(served: tuple[Server, pd.DataFrame]) -> None:
    server, _ = served
    with Server(server.whole, PAGE, "0.0.0.0", 0) as public:
        names = {"127.0.0.1:80", "localhost:80"}
        with mock.patch.multiple(public, server_port=80, _names=names):
            assert public.goes_by("127.0.0.1")
            assert public.goes_by("localhost")
            assert public.goes_by("192.0.2.1")
            assert not public.goes_by("evil.example")


def test_a_slash_too_many_is_none(served: tuple[Server, pd.DataFrame]) -> None:
    """The address ends in one, and who puts a question behind it begins with another."""
    server, _ = served
    once, twice = (get(server, f"/{server.token}{between}api/stat") for between in ("/", "//"))
    assert once[0] == twice[0] == 200
    assert once[2] == twice[2]
