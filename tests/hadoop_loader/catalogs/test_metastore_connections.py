"""Which metastore is asked, where there are several, and how one that asks for Kerberos learns who it is."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from hive_metastore.ThriftHiveMetastore import Processor
from hive_metastore.ttypes import Database
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TSocket import TSocket
from thrift.transport.TTransport import TBufferedTransport, TFramedTransport, TTransportBase, TTransportException

from millstream.core.security.sasl.mechanism import AuthenticationError, Mechanism
from millstream.hadoop_loader.catalogs import metastore
from millstream.hadoop_loader.catalogs.metastore import MetastoreError, connected
from millstream.hadoop_loader.job import HiveSettings, KerberosSettings

HEADER = struct.Struct(">BI")
START, OK, BAD, COMPLETE = 1, 2, 3, 5


class Metastore:
    """A metastore of a few lines, which has every database; where it `asks`, by an exchange of three challenges."""

    def __init__(self, *, asks: bool = False, refuses: bool = False) -> None:
        self.asks, self.refuses = asks, refuses
        self.told: list[bytes] = []
        self.databases: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"thrift://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def get_database(self, name: str) -> Database:
        self.databases.append(name)
        return Database(name=name)

    def _serve(self) -> None:
        with suppress(OSError):  # by the end of the test
            while True:
                connection, _ = self._listener.accept()
                with closing(TSocket()) as transport, suppress(TTransportException):
                    transport.setHandle(connection)
                    self._answer(transport)

    def _answer(self, transport: TTransportBase) -> None:
        if self.asks and not self._believes(transport):
            return
        protocol = TBinaryProtocol(TFramedTransport(transport) if self.asks else TBufferedTransport(transport))
        while True:
            Processor(self).process(protocol, protocol)

    def _believes(self, transport: TTransportBase) -> bool:
        for challenge in (None, b"one", b"two", b"three"):
            if challenge is not None:
                transport.write(HEADER.pack(OK, len(challenge)) + challenge)
            status, size = HEADER.unpack(transport.readAll(HEADER.size))
            assert status == (START if challenge is None else OK), status
            self.told.append(transport.readAll(size) if size else b"")
            if challenge is None:
                status, size = HEADER.unpack(transport.readAll(HEADER.size))
                self.told.append(transport.readAll(size))
        last = (BAD, b"who are you") if self.refuses else (COMPLETE, b"")
        transport.write(HEADER.pack(last[0], len(last[1])) + last[1])
        return not self.refuses

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


class Exchange:
    """A mechanism that says back what it hears, and believes the other after three challenges."""

    name = "GSSAPI"

    def __init__(self) -> None:
        self.heard = 0

    @property
    def is_complete(self) -> bool:
        return self.heard == 3

    def start(self) -> bytes:
        return b"it is me"

    def respond(self, challenge: bytes) -> bytes | None:
        self.heard += 1
        return None if self.heard == 1 else challenge.upper()


@pytest.fixture
def plain() -> Iterator[Metastore]:
    with closing(Metastore()) as found:
        yield found


@contextmanager
def nobody() -> Iterator[int]:
    """A port that is taken, and at which nobody listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_the_first_that_answers_is_asked(plain: Metastore) -> None:
    with nobody() as port:
        settings = HiveSettings(database="lake", metastore_uri=f"thrift://127.0.0.1:{port}, {plain.uri}")
        with connected(settings, "file:///lake") as one:
            one._have_database("lake")
    assert plain.databases == ["lake"]


def test_one_whose_name_nobody_knows_is_passed_over_in_silence(
    plain: Metastore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any) -> Any:
        if host == "nobody":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    settings = HiveSettings(database="lake", metastore_uri=f"thrift://nobody:9083, {plain.uri}")
    with connected(settings, "file:///lake") as one:
        one._have_database("lake")
    assert caplog.messages == []


def test_all_addresses_have_one_deadline(plain: Metastore, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    set_timeout = TSocket.setTimeout

    def remember(transport: TSocket, limit_ms: float) -> None:
        limits.append(limit_ms / 1000)
        set_timeout(transport, limit_ms)

    monkeypatch.setattr(TSocket, "setTimeout", remember)
    with nobody() as first, nobody() as second:
        uris = [f"thrift://127.0.0.1:{first}", f"thrift://127.0.0.1:{second}", plain.uri]
        with connected(HiveSettings(metastore_uri=",".join(uris)), "file:///lake", deadline_s=600):
            assert [limit <= most for limit, most in zip(limits, (200, 300, 600, 600), strict=True)] == [True] * 4
            assert limits[-1] == 600


def test_where_none_answers_each_is_told_of() -> None:
    with nobody() as first, nobody() as second:
        uris = [f"thrift://127.0.0.1:{port}" for port in (first, second)]
        settings = HiveSettings(metastore_uri=",".join(uris))
        with pytest.raises(MetastoreError) as raised, connected(settings, "file:///lake"):
            pytest.fail("nobody is there")
    for uri in uris:
        assert f"{uri}: Could not connect" in str(raised.value)


def test_one_that_asks_who_it_is_learns_it_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, KerberosSettings | None]] = []

    def exchange_with(service: str, host: str, kerberos: KerberosSettings | None) -> Mechanism:
        asked.append((service, host, kerberos))
        return Exchange()

    monkeypatch.setattr(metastore, "exchange_with", exchange_with)
    loader = KerberosSettings(principal="loader@EXAMPLE.ORG", keytab="/keytab")
    with closing(Metastore(asks=True)) as server:
        settings = HiveSettings(database="lake", metastore_uri=server.uri, kerberos_service="hive")
        with connected(settings, "file:///lake", loader) as one:
            one._have_database("lake")
            one._have_database("other")
        assert asked == [("hive", "127.0.0.1", loader)]
        assert server.told == [b"GSSAPI", b"it is me", b"", b"TWO", b"THREE"]
        assert server.databases == ["lake", "other"]


def test_one_that_does_not_believe_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metastore, "exchange_with", lambda *_: Exchange())
    with closing(Metastore(asks=True, refuses=True)) as server:
        settings = HiveSettings(metastore_uri=server.uri, kerberos_service="hive")
        with (
            pytest.raises(MetastoreError, match="the metastore refuses: who are you"),
            connected(settings, "file:///lake"),
        ):
            pytest.fail("it refuses")


def test_kerberos_that_fails_is_a_problem_of_the_metastore(plain: Metastore, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchange_with(*_: object) -> Mechanism:
        raise AuthenticationError("no Kerberos credentials for hive/127.0.0.1")

    monkeypatch.setattr(metastore, "exchange_with", exchange_with)
    settings = HiveSettings(metastore_uri=plain.uri, kerberos_service="hive")
    with (
        pytest.raises(MetastoreError, match=r"thrift://127\.0\.0\.1:.*: no Kerberos credentials"),
        connected(settings, "file:///lake"),
    ):
        pytest.fail("nobody is vouched for")
