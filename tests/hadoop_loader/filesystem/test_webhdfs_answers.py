"""What servers over HTTP say of renames, and what becomes of acts whose connection fails: no act is ever done twice."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from tests.support.http_servers import serving

from millstream.hadoop_loader.filesystem import (
    FileSystem,
    FileSystemError,
    FileSystemSettings,
    UnavailableError,
    UnknownOutcomeError,
    open_filesystem,
)
from millstream.hadoop_loader.filesystem.webhdfs import WebHdfsFileSystem

ABSENT = {"RemoteException": {"exception": "FileNotFoundException", "message": "not there"}}


class Gateway:
    """Answers as HttpFS does: RENAME by true or false, whatever renameoptions say; CREATE with all parents."""

    def __init__(self) -> None:
        # What RENAME of a probe, and of anything else, is answered: a status and a body.
        self.of_probe: tuple[int, Any] = 200, {"boolean": False}
        self.of_rename: tuple[int, Any] = 200, {"boolean": False}
        self.asked: list[tuple[str, str]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                address = urlsplit(self.path)
                query = parse_qs(address.query)
                operation = query["op"][0]
                path = address.path.removeprefix("/webhdfs/v1")
                gateway.asked.append((operation, path))
                if operation == "RENAME":
                    self._say(*(gateway.of_probe if "probe" in path else gateway.of_rename))
                elif "noredirect" in query:
                    where = f"http://{gateway.address}{address.path}?op={operation}"
                    self._say(200, {"Location": where})
                else:
                    self._say(200, {"boolean": True})

            do_PUT = do_DELETE = _answer  # noqa: N815  the names are the library's

            def _say(self, status: int, found: Any) -> None:
                data = b"" if found is None else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                """Nothing: tests are quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    found = Gateway()
    with serving(found.server):
        yield found


@pytest.fixture
def lake(gateway: Gateway) -> Iterator[FileSystem]:
    with open_filesystem(f"webhdfs://{gateway.address}/lake", FileSystemSettings(deadline_s=60)) as filesystem:
        yield filesystem


def test_a_gateway_is_refused_before_anything_is_written(gateway: Gateway, lake: FileSystem) -> None:
    for act in (lambda: lake.create("entry"), lambda: lake.rename("staged", "entry")):
        with pytest.raises(FileSystemError, match=r"HttpFS.*RENAME of nothing is no error; .*webhdfs://NAMENODE:9870"):
            act()
    assert [operation for operation, _ in gateway.asked] == ["RENAME", "RENAME"]


def test_a_gateway_that_makes_parents_is_refused_and_what_it_made_is_removed(
    gateway: Gateway, lake: FileSystem
) -> None:
    gateway.of_probe = 404, ABSENT
    with pytest.raises(FileSystemError, match="CREATE makes the parent"):
        lake.rename("staged", "entry")
    operation, directory = gateway.asked[-1]
    assert (operation, directory.startswith("/lake/_millstream-probe-")) == ("DELETE", True)
    assert ("CREATE", f"{directory}/file") in gateway.asked


@pytest.mark.parametrize(("done", "kind"), [(False, FileSystemError), (True, UnknownOutcomeError)])
def test_yes_or_no_is_no_answer_to_a_rename(gateway: Gateway, lake: FileSystem, done: bool, kind: type) -> None:
    """One server of several may be a gateway, so every answer is looked at."""
    assert isinstance(lake, WebHdfsFileSystem)
    lake._is_proven = True
    gateway.of_rename = 200, {"boolean": done}
    with pytest.raises(FileSystemError, match=r"RENAME is answered .*; name the NameNodes themselves") as raised:
        lake.rename("staged", "entry")
    assert type(raised.value) is kind
    gateway.of_rename = 200, None
    lake.rename("staged", "entry")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] bad record", UnknownOutcomeError),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", UnavailableError),
    ],
)
def test_tls_that_fails_behind_its_handshake_says_nothing_of_an_act(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type
) -> None:
    settings = FileSystemSettings(deadline_s=0.2)
    with open_filesystem("swebhdfs://127.0.0.1:1/lake", settings) as lake:
        assert isinstance(lake, WebHdfsFileSystem)

        def fail(*_: object, **__: object) -> None:
            raise requests.exceptions.SSLError(ssl.SSLError(1, said))

        monkeypatch.setattr(lake._session, "request", fail)
        with pytest.raises(FileSystemError, match="check ca_file and the certificate") as of_act:
            lake.delete("file")
        with pytest.raises(UnavailableError, match="check ca_file and the certificate"):
            lake.status("file")
    assert type(of_act.value) is kind
