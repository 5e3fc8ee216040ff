"""The server of `sltrace serve`: one trace, for whoever has the token, and nobody else.

A page of another site that the user has open can make the browser ask this server, too. It does not
know the token, which is in every path; a name of its own that it points to this address is not
among the hosts that are answered; and what says that it comes from elsewhere is refused.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import select
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from sltrace.cli.answers import answer
from sltrace.errors import OutputError, SltraceError, UsageError

if TYPE_CHECKING:
    from sltrace.analysis.part import Whole

_PATIENCE_S = 30
"""With who asks and says nothing, and with each piece of an answer that is not taken."""
_PIECE = 1 << 16
"""Bytes: taken within that time at 17 kbit/s; a page is up to 12 MB."""
_MAX_CONNECTIONS = 64
"""At a time: a browser has six. Each is a thread and a file."""
_MAX_PARAMETERS = 200
_HTTP = 80


class Server(ThreadingHTTPServer):
    """Serves a trace.

    Args:
        whole: It.
        page: Its HTML page.
        address: Where to listen.
        port: 0 for a free one.

    Raises:
        OutputError: The address or port cannot be had.
    """

    daemon_threads = True
    # Whoever connects and says nothing is left to the patience of its own thread.
    request_queue_size = 16

    def __init__(self, whole: Whole, page: bytes, address: str, port: int) -> None:
        self.whole = whole
        self.page = page
        self.token = secrets.token_urlsafe(24)
        # DuckDB's connection and the views on it are for one thread at a time.
        self.one_at_a_time = threading.Lock()
        self._room = threading.Semaphore(_MAX_CONNECTIONS)
        self.asking: dict[socket.socket, float] = {}
        """Who has not yet asked, and since when (time.monotonic)."""
        try:
            super().__init__((address, port), _Handler)
        except (OSError, OverflowError) as err:
            why = getattr(err, "strerror", None) or err
            raise OutputError(
                f"cannot listen on {address} port {port}: {why}",
                "choose another --port or --listen",
            ) from err
        self._names = {f"{h}:{self.server_port}" for h in (address, "127.0.0.1", "localhost")}
        self._public = not ip_address(address).is_loopback

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers on a thread of its own, unless too many are under way."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class does, and makes room again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def service_actions(self) -> None:
        """Twice a second: hangs up on who takes too long to ask, however often it says a byte."""
        late = time.monotonic() - _PATIENCE_S
        for connection, since in list(self.asking.items()):
            if since < late:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def goes_by(self, host: str) -> bool:
        """Whether a Host header is this server's.

        A name is, only if it is the loopback's: any other could be made to point here by whoever
        owns it. From the network it is reached by address, which nobody else can own.
        """
        if self.server_port == _HTTP and ":" not in host:
            # That one browsers leave out.
            host = f"{host}:{_HTTP}"
        if host.lower() in self._names:
            return True
        name, _, port = host.rpartition(":")
        try:
            ip_address(name)
        except ValueError:
            return False
        return self._public and port == str(self.server_port)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a reader that went away is no error, and a name in one could be hostile."""

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.server_address[0]!s}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "sltrace"
    sys_version = ""
    timeout = _PATIENCE_S

    def handle_one_request(self) -> None:
        """As the base class does, of who may take so long to ask."""
        self.server.asking[self.connection] = time.monotonic()
        try:
            super().handle_one_request()
        finally:
            self.server.asking.pop(self.connection, None)

    def do_GET(self) -> None:
        """Answers, if asked rightly."""
        self.server.asking.pop(self.connection, None)
        if why := self._refusal():
            self._send(HTTPStatus.FORBIDDEN, "text/plain", why.encode())
            return
        path, _, query = self.path.partition("?")
        empty, token, *rest = path.split("/") if "/" in path else ("", "")
        # The address ends in /, and scripts put one before what they ask for.
        rest = [part for part in rest if part] or rest[:1]
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        if empty or not known or not rest:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        elif rest == [""]:
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        elif len(rest) == 2 and rest[0] == "api":
            self._answer(rest[1], query)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")

    do_HEAD = do_GET  # noqa: N815

    def _refusal(self) -> str:
        """Why this is not answered; empty if it is."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.goes_by(hosts[0]):
            return "this server does not go by that name"
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() != f"http://{hosts[0].lower()}":
            return "this server answers its own page only"
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return "this server answers its own page only"
        return ""

    def _answer(self, name: str, query: str) -> None:
        try:
            parameters = parse_qs(
                query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict"
            )
        except ValueError:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": "the parameters cannot be read"})
            return
        try:
            with self.server.one_at_a_time:
                if self._left():
                    self.close_connection = True
                    return
                found = answer(self.server.whole, name, parameters)
        except UsageError as err:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(err)})
        except SltraceError as err:
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": str(err)})
        except Exception as err:
            what = f"internal error, {type(err).__name__}: please report it"
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": what})
        else:
            if found is None:
                self._send_json(HTTPStatus.NOT_FOUND, {"error": "no such question"})
            else:
                self._send_json(HTTPStatus.OK, found)

    def _left(self) -> bool:
        """Whether who asked went away while others were answered."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _send_json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(value, separators=(",", ":")).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            # The token is in the address: no link may hand it on.
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            # A socket's patience is with all that is written at once.
            for at in range(0, len(body), _PIECE):
                self.wfile.write(body[at : at + _PIECE])

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: addresses have the token in them."""
