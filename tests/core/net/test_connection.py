"""Connection against servers that answer, keep silent, talk nonsense and go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from millstream.core.net import Address, Connection, ConnectionClosedError, ConnectionTimeoutError
from millstream.core.wire import ApiKey, ErrorCode, encode, encode_response_header, parse_request_header
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataResponse

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Address]:
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def read_correlation_id(reader: asyncio.StreamReader) -> int:
    size = int.from_bytes(await reader.readexactly(4), "big")
    header, _ = parse_request_header(await reader.readexactly(size))
    return header.correlation_id


def framed_answer(correlation_id: int, controller_id: int) -> bytes:
    body = encode_response_header(ApiKey.METADATA, 1, correlation_id)
    body += bytes(encode(MetadataResponse(controller_id=controller_id), 1))
    return len(body).to_bytes(4, "big") + body


async def ask(connection: Connection, timeout_s: float = 10) -> int:
    response: MetadataResponse = await connection.request(MetadataRequest(), ApiKey.METADATA, 1, timeout_s=timeout_s)
    return response.controller_id


async def test_many_requests_in_flight_get_their_own_answers() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            ids = [await read_correlation_id(reader) for _ in range(8)]
            writer.write(b"".join(framed_answer(one, one * 10) for one in ids))

    async with serving(serve) as address:
        connection = await Connection.open(address, in_flight_max=8)
        answers = await asyncio.gather(*(ask(connection) for _ in range(40)))
        assert answers == [one * 10 for one in range(40)]
        connection.close()
        await connection.wait_closed()
        with pytest.raises(ConnectionClosedError, match="closed by this client"):
            await ask(connection)


async def test_silence_closes_the_connection_at_the_deadline_and_fails_all_that_wait() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with serving(serve) as address:
        connection = await Connection.open(address)
        late = asyncio.create_task(ask(connection, timeout_s=30))
        with pytest.raises(ConnectionTimeoutError, match=r"did not answer METADATA within 0.05 s") as raised:
            await ask(connection, timeout_s=0.05)
        assert raised.value.code is ErrorCode.REQUEST_TIMED_OUT
        with pytest.raises(ConnectionTimeoutError):
            await late
        assert not connection.is_open
        await connection.wait_closed()


async def test_a_server_that_goes_away_is_named_with_what_waited() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_correlation_id(reader)

    async with serving(serve) as address:
        connection = await Connection.open(address)
        with pytest.raises(ConnectionClosedError, match="closed the connection while METADATA waited") as raised:
            await ask(connection)
        assert raised.value.code.retriable
        assert str(address) in raised.value.message
        await connection.wait_closed()


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x05\x7f\x00\x00\x00\x00"])
async def test_what_is_no_answer_closes_the_connection(nonsense: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_correlation_id(reader)
        writer.write(nonsense)
        await reader.read(-1)

    async with serving(serve) as address:
        connection = await Connection.open(address)
        with pytest.raises(ConnectionClosedError, match="is no Kafka answer"):
            await ask(connection)
        await connection.wait_closed()


async def test_where_nothing_listens_says_so() -> None:
    async with serving(lambda _reader, _writer: asyncio.sleep(0)) as address:
        pass
    with pytest.raises(ConnectionClosedError, match=f"cannot connect to {address}: nothing listens there"):
        await Connection.open(address)


async def test_requests_wait_while_as_many_as_allowed_are_in_flight() -> None:
    seen: list[int] = []
    full, release = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend([await read_correlation_id(reader), await read_correlation_id(reader)])
        full.set()
        await release.wait()
        for one in seen[:2]:
            writer.write(framed_answer(one, 0))
        seen.append(await read_correlation_id(reader))
        writer.write(framed_answer(seen[-1], 0))
        await reader.read(-1)

    async with serving(serve) as address:
        connection = await Connection.open(address, in_flight_max=2)
        waiting = [asyncio.create_task(ask(connection)) for _ in range(3)]
        await asyncio.wait_for(full.wait(), 10)
        assert connection.in_flight == 2
        release.set()
        await asyncio.gather(*waiting)
        assert seen == [0, 1, 2]
        connection.close()
        await connection.wait_closed()
