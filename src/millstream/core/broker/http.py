"""The optional HTTP port: `GET /metrics` and `GET /healthz`, and nothing else.

A dozen lines of HTTP/1.1 on purpose: no body is ever read, each connection answers one request and closes. Everything a
peer can make large or slow is bounded: connections, the request's head, the time to send it and the time to take the
answer. An answer is produced in pieces and the loop runs between them, so that a scrape of 20,000 partitions does not
hold up a produce request. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

logger = logging.getLogger(__name__)

CONNECTIONS_COUNT_MAX: Final = 32
HEAD_SIZE_BYTES_MAX: Final = 8192
HEAD_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 30.0

_METHODS: Final = ("GET", "HEAD")
TEXT: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a route answers: the body comes in pieces, each made within a millisecond."""

    status: HTTPStatus
    content_type: str
    body: Iterable[str]


Route = Callable[[], Answer]


class HttpServer:
    """Serves a fixed table of routes on one address.

    States: CLOSED -> SERVING (start) -> CLOSED (stop).
    """

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = dict(routes)
        self._server: asyncio.Server | None = None
        # Tasks of the connections being served. Invariant: at most CONNECTIONS_COUNT_MAX.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port bound, which differs from the one asked for when that was 0."""
        assert self._server is not None, "not serving"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen; raises OSError where the address cannot be bound."""
        self._server = await asyncio.start_server(self._accepted, host, port, limit=HEAD_SIZE_BYTES_MAX)

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS_COUNT_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                head = await _read_head(reader)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._answer(head, writer)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            # A peer that is slow, went away or sent nothing: its connection is all that ends.
            logger.debug("HTTP connection dropped: %r", error)
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes | None, writer: asyncio.StreamWriter) -> None:
        method, path, version, fault = _parse(head)
        if fault is not None:
            answer = _plain(fault)
        elif method not in _METHODS:
            answer = _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        elif (route := self._routes.get(path)) is None:
            answer = _plain(HTTPStatus.NOT_FOUND)
        else:
            answer = route()
        chunked = version == "HTTP/1.1"
        lines = [
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.content_type}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append(f"Allow: {', '.join(_METHODS)}")
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if method != "HEAD":
            for piece in answer.body:
                data = piece.encode()
                if data:
                    writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                    await writer.drain()
                await asyncio.sleep(0)
            if chunked:
                writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> bytes | None:
    """The request's head with its empty line; None where it is longer than the bound."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None


def _parse(head: bytes | None) -> tuple[str, str, str, HTTPStatus | None]:
    """Return method, path without its query, version, and what is wrong with the request, if anything."""
    if head is None:
        return "", "", "", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        return "", "", "", HTTPStatus.BAD_REQUEST
    return parts[0], parts[1].partition("?")[0], parts[2], None


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status, TEXT, (f"{status.value} {status.phrase}\n",))
