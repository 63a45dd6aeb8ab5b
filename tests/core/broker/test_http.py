"""The HTTP port as a scraper, a browser and a hostile peer meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import NamedTuple

import pytest

from millstream.core.broker import http
from millstream.core.broker.http import HEAD_SIZE_BYTES_MAX, TEXT, Answer, HttpServer


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    def long_answer() -> Answer:
        return Answer(HTTPStatus.OK, TEXT, (f"line {index}\n" for index in range(5000)))

    server = HttpServer({"/hello": lambda: Answer(HTTPStatus.OK, TEXT, ("he", "llo\n")), "/long": long_answer})
    await server.start("127.0.0.1", 0)
    yield server
    await server.stop()


async def exchange(server: HttpServer, request: bytes) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    if headers.get("transfer-encoding") == "chunked" and body:
        body = b"".join(_chunks(body))
    return Reply(int(lines[0].split()[1]), headers, body)


def _chunks(body: bytes) -> Iterator[bytes]:
    while True:
        size, _, rest = body.partition(b"\r\n")
        count = int(size, 16)
        assert rest[count : count + 2] == b"\r\n", "a chunk without its end"
        if not count:
            return
        yield rest[:count]
        body = rest[count + 2 :]


async def test_get_and_head(server: HttpServer) -> None:
    got = await exchange(server, b"GET /hello?x=1 HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (got.status, got.body) == (200, b"hello\n")
    assert got.headers["content-type"] == TEXT
    assert got.headers["connection"] == "close"

    head = await exchange(server, b"HEAD /hello HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (head.status, head.body) == (200, b"")


async def test_an_old_client_gets_no_chunks(server: HttpServer) -> None:
    got = await exchange(server, b"GET /hello HTTP/1.0\r\n\r\n")
    assert (got.status, got.body) == (200, b"hello\n")
    assert "transfer-encoding" not in got.headers


async def test_a_long_answer_arrives_whole(server: HttpServer) -> None:
    got = await exchange(server, b"GET /long HTTP/1.1\r\nHost: here\r\n\r\n")
    assert got.body == b"".join(b"line %d\n" % index for index in range(5000))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"POST /hello HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /hello\r\n\r\n", 400),
        (b"GET /hello HTTP/9.9\r\n\r\n", 400),
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nX: " + b"x" * HEAD_SIZE_BYTES_MAX + b"\r\n\r\n", 431),
    ],
    ids=["unknown", "method", "short line", "version", "garbage", "long head"],
)
async def test_what_cannot_be_served_says_so(server: HttpServer, request_bytes: bytes, status: int) -> None:
    got = await exchange(server, request_bytes)
    assert got.status == status
    assert str(status).encode() in got.body
    if status == 405:
        assert got.headers["allow"] == "get, head"


async def test_a_slow_request_is_given_up(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_TIMEOUT_S", 0.02)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /hel")
    assert await _read_to_the_end(reader) == b""
    writer.close()


async def test_connections_are_bounded_and_come_back(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_COUNT_MAX", 3)
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    # Connections are accepted in order, so what the held ones have begun is seen before the next one comes.
    for _, writer in held:
        writer.write(b"GET /hello HTTP/1.1\r\n")
    refused, refused_writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await _read_to_the_end(refused) == b""
    refused_writer.close()

    for reader, writer in held:
        writer.write(b"\r\n")
        assert b"200 OK" in await reader.read()
        writer.close()
    assert (await exchange(server, b"GET /hello HTTP/1.1\r\n\r\n")).status == 200


async def test_stop_ends_open_connections(server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /hel")
    await exchange(server, b"GET /hello HTTP/1.1\r\n\r\n")

    await server.stop()

    assert await _read_to_the_end(reader) == b""
    writer.close()


async def _read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """What came before the connection ended, however it ended."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
