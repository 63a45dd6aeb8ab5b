"""Connections to DataNodes over HTTP end with what they were for, however that ends: none is left to the collector."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support.http_servers import serving

from millstream.hadoop_loader.filesystem import (
    AccessDeniedError,
    FileSystem,
    FileSystemSettings,
    UnavailableError,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.hadoop_loader.filesystem.webhdfs import WebHdfsFileSystem, WebHdfsInputFile
from millstream.testing.kafka import wait_until

SIZE = 4096
REFUSAL = {"RemoteException": {"exception": "AccessControlException", "message": "not yours"}}
ABSENT = {"RemoteException": {"exception": "FileNotFoundException", "message": "not there"}}


class Cluster:
    """A NameNode and a DataNode of a few lines. As real ones do, the DataNode says no length and closes its side."""

    def __init__(self) -> None:
        self.refuses = False
        # Bytes that the DataNode has of the file, which is of SIZE bytes.
        self.size = SIZE
        # Connections to the DataNode, and those of them that the client has closed.
        self.opened = self.closed = 0
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                address = urlsplit(self.path)
                if "millstream-probe" in address.path:
                    self._say(ABSENT, 404)
                elif "datanode=1" in address.query:
                    self._serve()
                elif "noredirect=true" in address.query:
                    self._say({"Location": f"http://{cluster.address}{address.path}?{address.query}&datanode=1"})
                else:
                    self._say({"FileStatus": {"type": "FILE", "length": SIZE, "modificationTime": 0}, "boolean": True})

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  the names are the library's

            def _say(self, found: Any, status: int = 200) -> None:
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _serve(self) -> None:
                cluster.opened += 1
                with suppress(OSError):  # by a client that has not read all
                    self.send_response(403 if cluster.refuses else 200)
                    self.send_header("Connection", "close")
                    self.end_headers()
                    self.wfile.write(json.dumps(REFUSAL).encode() if cluster.refuses else b"x" * cluster.size)
                    self.connection.shutdown(socket.SHUT_WR)
                    while self.connection.recv(65_536):
                        continue
                cluster.closed += 1

            def log_message(self, *arguments: object) -> None:
                """Nothing: tests are quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def wait_closed(self, count: int) -> None:
        """Until the client has closed all of `count` connections."""
        wait_until(lambda: self.opened == self.closed == count, 60, f"{count} connections to be closed")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    with serving(found.server):
        yield found


@pytest.fixture
def lake(cluster: Cluster) -> Iterator[FileSystem]:
    with open_filesystem(f"webhdfs://{cluster.address}/lake", FileSystemSettings(deadline_s=60)) as filesystem:
        yield filesystem


def test_an_answer_that_refuses(cluster: Cluster, lake: FileSystem) -> None:
    cluster.refuses = True
    with lake.open("file") as file:
        # While somebody looks at the error, frames live on that knew the connection.
        with pytest.raises(AccessDeniedError, match="not yours") as of_reading:
            file.read_at(0, SIZE)
        cluster.wait_closed(1)
    with pytest.raises(AccessDeniedError, match="not yours") as of_writing:
        lake.create("file")
    cluster.wait_closed(2)
    del of_reading, of_writing


def test_an_answer_that_is_cut(cluster: Cluster) -> None:
    cluster.size = SIZE - 1
    hasty = open_filesystem(f"webhdfs://{cluster.address}/lake", FileSystemSettings(deadline_s=0.5))
    assert isinstance(hasty, WebHdfsFileSystem)
    with hasty, pytest.raises(UnavailableError) as cut:
        WebHdfsInputFile(hasty, "file", SIZE).read_at(0, SIZE)
    wait_until(lambda: cluster.opened == cluster.closed, 60, "every connection to be closed")
    del cut


def test_answers_that_are_read_in_part(cluster: Cluster, lake: FileSystem) -> None:
    with lake.open("file") as file:
        assert file.read_at(0, 10) == b"x" * 10
        assert file.read_at(10, 10) == b"x" * 10
        assert file.read_at(SIZE - 10, 10) == b"x" * 10
    cluster.wait_closed(2)


def test_a_request_for_a_file_that_was_given_up_meanwhile(
    cluster: Cluster, lake: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer's deadline passes between the NameNode's answer and the DataNode's connection."""
    assert isinstance(lake, WebHdfsFileSystem)
    file = lake.create("file")
    cluster.wait_closed(1)
    connect = lake._servers.datanode

    def late(location: str) -> http.client.HTTPConnection:
        assert file.abandon()
        return connect(location)

    monkeypatch.setattr(lake._servers, "datanode", late)
    with pytest.raises(UnknownOutcomeError):
        file.write(b"x" * (2 << 20))
    cluster.wait_closed(2)
