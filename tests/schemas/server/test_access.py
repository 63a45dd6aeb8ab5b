"""Who may ask, and how much: basic authentication, TLS, bounds."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from tests.schemas.server.conftest import own_settings
from tests.support.certificates import make_certificates
from tests.support.registry import Asker, registry
from uvicorn.server import ServerState

from millstream.core.config import ConfigError
from millstream.schemas.server import auth, runner
from millstream.schemas.server.app import create_app
from millstream.schemas.server.auth import BasicAuthentication, password_line
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.settings import RegistryConfig
from millstream.testing import TestBroker


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def test_users_are_known_by_plain_and_by_hashed_passwords(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# who may\nalice:se:cret\n{password_line('bob', 'pässword')}\n\nbroken:scrypt:zz\n")
    users = BasicAuthentication.load(file, "Realm")
    assert "pässword" not in file.read_text()
    for name, password, allowed in (
        ("alice", "se:cret", True),
        ("bob", "pässword", True),
        ("bob", "pässword", True),
        ("alice", "secret", False),
        ("bob", "", False),
        ("carol", "x", False),
        ("broken", "x", False),
    ):
        assert await users.allows(basic(name, password).encode()) is allowed, name
    for header in (None, b"", b"Basic", b"Basic !", b"Basic YQ==", b"Bearer x", b"Basic " + b"A" * 10_000):
        assert not await users.allows(header)
    assert users.challenge.startswith('Basic realm="Realm"')
    file.write_text("nobody\n")
    with pytest.raises(ConfigError, match="users:1"):
        BasicAuthentication.load(file, "Realm")


async def test_a_wrong_password_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing it is left to a thread, a few at a time; a name that is not there is refused in the same way."""
    users = BasicAuthentication({"alice": password_line("alice", "right").removeprefix("alice:")}, "Realm")
    going_on, most = 0, 0
    here = threading.get_ident()
    elsewhere: list[bool] = []
    hashed, lock = auth._hashed, threading.Lock()

    def watched(password: str, salt: bytes) -> bytes:
        nonlocal going_on, most
        with lock:
            going_on += 1
            most = max(most, going_on)
            elsewhere.append(threading.get_ident() != here)
        found = hashed(password, salt)
        with lock:
            going_on -= 1
        return found

    monkeypatch.setattr(auth, "_hashed", watched)
    asked = [("alice", f"wrong{number}") for number in range(6)] + [("nobody", "x"), ("alice", "right")]
    allowed = await asyncio.gather(*(users.allows(basic(*one).encode()) for one in asked))
    assert allowed == [False] * 7 + [True]
    assert elsewhere == [True] * 8
    assert most <= 2


def test_only_users_are_answered_also_by_way_of_a_follower(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text(f"{password_line('alice', 'secret')}\n")
    settings = own_settings() | {"authentication.method": "BASIC", "authentication.users.location": str(users)}
    bootstrap = millstream_broker_session.bootstrap_servers
    with registry(bootstrap, settings) as first, registry(bootstrap, settings) as second:
        for url in (first.url, second.url):
            assert Asker(url).get("/subjects").status == 401
            assert Asker(url, {"Authorization": basic("alice", "wrong")}).get("/subjects").error_code == 401
            alice = Asker(url, {"Authorization": basic("alice", "secret")})
            assert alice.register("s", '"int"').body["id"] == 1
            # What was answered to her is not answered to anybody.
            assert alice.get("/schemas/ids/1").status == 200
            assert Asker(url).get("/schemas/ids/1").status == 401


def test_https(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    settings = own_settings() | {
        "ssl.certificate.location": str(certificates.server),
        "inter.instance.ca.location": str(certificates.authority),
        "host.name": "localhost",
    }
    bootstrap = millstream_broker_session.bootstrap_servers
    context = ssl.create_default_context(cafile=str(certificates.authority))
    with (
        registry(bootstrap, settings, listen="https://127.0.0.1:0") as first,
        registry(bootstrap, settings, listen="https://127.0.0.1:0") as second,
    ):
        for url in (first.url, second.url):
            assert url.startswith("https://")
            connection = http.client.HTTPSConnection("localhost", urlsplit(url).port, timeout=60, context=context)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/subjects/s/versions", b'{"schema":"\\"int\\""}', headers)
            assert json.loads(connection.getresponse().read())["id"] == 1
            connection.close()


def test_bounds(millstream_broker_session: TestBroker) -> None:
    settings = own_settings() | {
        "request.size.bytes.max": "2000000",
        "schema.search.default.limit": "2",
        "schema.search.max.limit": "3",
        "subject.search.max.limit": "2",
    }
    with registry(millstream_broker_session.bootstrap_servers, settings) as running:
        asker = Asker(running.url)
        for number in range(5):
            assert (
                asker.register(f"s{number}", json.dumps({"type": "fixed", "name": "F", "size": number + 1})).status
                == 200
            )
        assert len(asker.get("/schemas").body) == 2
        assert len(asker.get("/schemas", limit=3).body) == 3
        assert len(asker.get("/schemas", limit=99).body) == 2
        assert [one["subject"] for one in asker.get("/schemas", offset=3, limit=3).body] == ["s3", "s4"]
        assert len(asker.get("/subjects", limit=2).body) == 2
        assert len(asker.get("/subjects").body) == 5
        # A schema larger than a record of the topic may be, and one larger than a request may be.
        large = json.dumps({"type": "enum", "name": "E", "symbols": [f"S{one}" for one in range(120_000)]})
        assert asker.register("large", large).error_code == 42209
        assert (
            asker.register("larger", json.dumps({"type": "fixed", "name": "F" * 2_000_000, "size": 1})).error_code
            == 413
        )
        assert (
            asker.register(
                "many", '"int"', references=[{"name": "a", "subject": "s0", "version": 1}] * 1_001
            ).error_code
            == 422
        )
        assert asker.register("deep", "[" * 100_000).error_code == 42201
        assert asker.ask("GET", "/subjects?" + "&".join(f"a{one}=1" for one in range(500))).error_code == 400
        # All of that left it as it was.
        assert asker.register("after", '"int"').body["id"] == 6


def test_what_is_no_request_is_refused_and_hurts_nobody(schemas: Asker) -> None:
    address = urlsplit(schemas.url)
    for data in (
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /subjects/s/versions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
        b"POST /subjects/s/versions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    assert schemas.get("/subjects").status == 200


async def _answers(scope: object, receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def connection(
    app: Any = _answers, state: ServerState | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the HTTP side, with nothing behind it."""
    config = uvicorn.Config(app, http=runner.HttpProtocol, log_config=None, lifespan="off")
    state = ServerState() if state is None else state
    server = await asyncio.get_running_loop().create_server(
        lambda: runner.HttpProtocol(config, state, {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.close()
        server.close()


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nA: ", b"GET / HTTP/1.1\r\nA: b\r\n" * 2])
async def test_the_head_of_a_request_is_bounded(start: bytes) -> None:
    async with connection() as (reader, writer):
        # One that is as large as it may be, and one that never ends.
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 60_000 + b"\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(start + b"a" * 100_000)
        # What it sent behind the bound was not read any more, which may end it before the answer came.
        with suppress(ConnectionResetError):
            assert b" 400 " in await reader.read()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /"])
async def test_the_head_of_a_request_is_waited_for_no_longer_than_it_may_take(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HEAD_TIMEOUT_S", 0.1)
    async with connection() as (reader, writer):
        writer.write(sent)
        answered = await reader.read()
        assert answered.count(b"200 OK") == sent.count(b"\r\n\r\n")


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"0\r\nTrailer: ", b"a" * 1_000),
        (b"2\r\n{}\r\n0\r\n", b"A: b\r\n" * 100),
        (b"2;extension=", b"a" * 1_000),
    ],
)
async def test_what_is_neither_head_nor_body_is_bounded(start: bytes, more: bytes) -> None:
    async with connection() as (reader, writer):
        # As much of it as is taken, and what never ends.
        writer.write(CHUNKED + b"0\r\nTrailer: " + b"a" * 30_000 + b"\r\n\r\n" + CHUNKED + start)
        sent = 0
        with suppress(ConnectionError):
            while not reader.at_eof():
                assert sent < 100_000_000
                writer.write(more)
                sent += len(more)
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(65_536), 0)


async def test_a_body_in_many_chunks_is_no_trailer() -> None:
    async with connection() as (reader, writer):
        writer.write(CHUNKED)
        for _ in range(200):
            writer.write(b"400\r\n" + b"a" * 1_024 + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"{"])
async def test_a_body_is_waited_for_no_longer_than_it_may_take(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reads(scope: object, receive: Callable[[], Awaitable[dict[str, Any]]], send: object) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    monkeypatch.setattr(runner, "BODY_TIMEOUT_S", 0.1)
    async with connection(reads) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n" + sent)
        answered = await reader.read()
        assert answered.startswith(b"HTTP/1.1 408 ")
        assert b'"error_code": 408' in answered


@pytest.mark.parametrize("times", [1, 3])
async def test_a_client_that_takes_no_answer_is_let_go(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a thousand of them, and nobody else is served."""
    size = 30_000_000

    async def large(scope: object, receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    state = ServerState()
    async with connection(large, state) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(size)
        monkeypatch.setattr(runner, "SEND_TIMEOUT_S", 0.2)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * times)
        while state.connections:  # noqa: ASYNC110  the server's side of it
            await asyncio.sleep(0.01)


async def test_what_is_kept_counts_with_what_was_asked() -> None:
    """Else whoever varies a header of 60 kB fills the memory."""
    given = {"kafkastore.bootstrap.servers": "127.0.0.1:1", "response.cache.size.bytes": "20000"}
    app = create_app(Registry(RegistryConfig.load(None, given)))
    kept_at_most = 0

    async def ask(accept: bytes) -> None:
        scope = {"type": "http", "method": "GET", "path": "/schemas/types", "raw_path": b"/schemas/types"}
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        await app(scope | {"query_string": b"", "headers": [(b"accept", accept)]}, receive, send)
        assert sent[0]["status"] == 200

    for number in range(100):
        await ask(b"%02d" % number + b"a" * 3_000)
        kept_at_most = max(kept_at_most, sum(len(part) for key in app._cache for part in key))
    assert 3_000 < kept_at_most < 20_000
    await ask(b"longer" * 1_000)
    assert max(len(accept) for _, _, accept in app._cache) < 4_096
    await app.close()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, "application/vnd.schemaregistry.v1+json"),
        ("*/*", "application/vnd.schemaregistry.v1+json"),
        ("application/json", "application/json"),
        ("application/json;q=0.5, application/vnd.schemaregistry+json", "application/vnd.schemaregistry+json"),
        ("text/html", "application/vnd.schemaregistry.v1+json"),
    ],
)
def test_the_answer_has_the_type_that_was_asked_for(schemas: Asker, accept: str | None, wanted: str) -> None:
    asker = Asker(schemas.url, {} if accept is None else {"Accept": accept})
    for _ in range(2):  # the second time from what was kept
        assert asker.get("/schemas/types").content_type == wanted
    assert asker.get("/nowhere").content_type == wanted


def test_a_body_of_another_type_is_refused(schemas: Asker) -> None:
    asker = Asker(schemas.url, {"Content-Type": "text/plain"})
    assert asker.register("s", '"int"').error_code == 415
