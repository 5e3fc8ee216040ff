"""A small HTTP server for what is pushed: bounded in connections, bytes and patience.

It runs in a thread of its own without any capability, and knows nothing of what it receives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from sltrace.capture import privileges
from sltrace.errors import OutputError

MAX_CONNECTIONS = 16
PATIENCE_S = 20.0
"""For one whole request, however slowly it comes."""
_LAST_S = 2.0
_MAX_HEAD = 16 << 10
_MOST_CHUNKS = 1 << 16
"""Each takes time of the recorder's, however small it is."""
_MOST_DIGITS = 12
"""Of a length, which is then more than may be."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """A whole request.

    Attributes:
        path: Before the question mark.
        query: After it.
        body: As it came.
    """

    path: str
    query: str
    body: bytes


class Refusal(Exception):
    """A request that is not answered with 200; the message says why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Receiver:
    """Listens from the start, in the background.

    Args:
        host: Address to listen on.
        port: 0 for a free one.
        max_body: Bytes of a body that are accepted.
        take: Called with each request, in the receiver's thread; returns of what type the answer
            is, which is empty; may raise Refusal.
        refused: Called with the reason for each request that was not taken.

    Raises:
        OutputError: The address or port cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        max_body: int,
        take: Callable[[Request], str],
        refused: Callable[[str], None],
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=64)
        except (OSError, OverflowError) as err:
            number = getattr(err, "errno", None)
            why = os.strerror(number) if number else err
            raise OutputError(
                f"cannot listen on {host} port {port}: {why}", "choose another address or port"
            ) from err
        self.port: int = self._socket.getsockname()[1]
        self._max_body = max_body
        self._take = take
        self._refused = refused
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="sltrace-receive", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening; requests that are under way are dropped. May be called twice."""
        if self._thread.is_alive():
            # It may be ending by itself.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    def _run(self) -> None:
        privileges.keep_only(set())
        with contextlib.closing(self._loop), self._socket:
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._connected, sock=self._socket, limit=_MAX_HEAD, backlog=MAX_CONNECTIONS
        )
        await self._end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > MAX_CONNECTIONS:
                self._refused("too many connections")
                return
            async with asyncio.timeout(PATIENCE_S):
                status, why, kind = await self._answer(reader, writer)
            if status:
                await _reply(reader, writer, status, why, kind)
        except TimeoutError:
            self._refused("too slow")
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self._refused("connection lost")
        except Exception as err:
            # A recording does not end, and a terminal is not written on, because of a client.
            self._refused(f"internal error, {type(err).__name__}: please report it")
        finally:
            self._connections -= 1
            # Not closed in order: whoever does not read its answer must not keep the connection.
            writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[HTTPStatus | None, str, str]:
        """Status, text and its type to answer with; no status where nobody asked."""
        try:
            request = await self._request(reader, writer)
            if request is None:
                return None, "", ""
            return HTTPStatus.OK, "", self._take(request)
        except Refusal as err:
            self._refused(str(err))
            return err.status, str(err), "text/plain"

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Request | None:
        """The request; None if the connection was closed before one."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "headers too long") from None
        except asyncio.IncompleteReadError as err:
            if err.partial:
                raise
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in lines)}
        _refuse_strange(first, headers)
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        size = 0 if chunked else self._size(headers)
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(_CONTINUE)
        body = await (self._chunks(reader) if chunked else reader.readexactly(size))
        path, _, query = first.split(" ")[1].partition("?")
        return Request(path, query, body)

    def _size(self, headers: dict[str, str]) -> int:
        """Bytes of the body."""
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
        # Python makes no numbers of very many digits.
        return self._bounded(int(length) if len(length) <= _MOST_DIGITS else self._max_body + 1)

    def _bounded(self, size: int) -> int:
        if size > self._max_body:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the push has more than {self._max_body >> 20} MiB",
            )
        return size

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        """The body of a client that begins to send it before it knows how long it is."""
        body = bytearray()
        try:
            for _ in range(_MOST_CHUNKS):
                size = _chunk_size(await reader.readuntil(b"\r\n"))
                self._bounded(len(body) + size)
                body += await reader.readexactly(size)
                # After the last one may come more headers, which no client of these sends.
                if await reader.readexactly(2) != b"\r\n":
                    break
                if not size:
                    return bytes(body)
        except asyncio.LimitOverrunError:
            pass
        raise Refusal(HTTPStatus.BAD_REQUEST, "not an HTTP request")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > _MOST_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "not an HTTP request")
    return int(digits, 16)


def _refuse_strange(first: str, headers: dict[str, str]) -> None:
    """Raises Refusal where this is no request to be answered."""
    if first.count(" ") != 2 or not first.endswith(("HTTP/1.1", "HTTP/1.0")):
        raise Refusal(HTTPStatus.BAD_REQUEST, "not an HTTP request")
    if not first.startswith("POST "):
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "not a POST")
    if "origin" in headers or "sec-fetch-site" in headers:
        # Any page that the user has open could send one.
        raise Refusal(HTTPStatus.FORBIDDEN, "from a browser")


async def _reply(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    status: HTTPStatus,
    why: str,
    kind: str,
) -> None:
    body = f"{why}\n".encode() if why else b""
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {kind}\r\n" if kind else ""
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    writer.write_eof()
    # Until the other end has read it, if it does so soon: an abort drops what it has not.
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_LAST_S):
            while await reader.read(_MAX_HEAD):
                pass
