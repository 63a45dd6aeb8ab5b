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
DENIED = {"RemoteException": {"exception": "AccessControlException", "message": "not yours"}}
TAKEN = {"RemoteException": {"exception": "FileAlreadyExistsException", "message": "taken"}}


class Gateway:
    """Answers as HttpFS does: RENAME by true or false, whatever renameoptions say; CREATE with all parents."""

    def __init__(self) -> None:
        # What RENAME of a probe is answered, and of anything else, in turn (the last repeats): a status and a body.
        self.of_probe: tuple[int, Any] = 200, {"boolean": False}
        self.of_renames: list[tuple[int, Any]] = [(200, {"boolean": False})]
        # What CREATE is answered; None for one that is done.
        self.of_create: tuple[int, Any] | None = None
        # Whether the next CREATE is done and not answered.
        self.is_cut = False
        self.files: set[str] = set()
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
                    answers = [gateway.of_probe] if "probe" in path else gateway.of_renames
                    self._say(*(answers.pop(0) if len(answers) > 1 else answers[0]))
                elif "noredirect" in query:
                    where = f"http://{gateway.address}{address.path}?op={operation}"
                    self._say(200, {"Location": where})
                elif operation == "CREATE":
                    self._create(path)
                else:
                    gateway.files = {name for name in gateway.files if not name.startswith(f"{path}/")}
                    self._say(200, {"boolean": True})

            do_PUT = do_DELETE = _answer  # noqa: N815  the names are the library's

            def _create(self, path: str) -> None:
                if path in gateway.files:
                    self._say(403, TAKEN)
                    return
                if gateway.of_create is not None:
                    self._say(*gateway.of_create)
                    return
                gateway.files.add(path)
                self.close_connection = gateway.is_cut
                if not gateway.is_cut:
                    self._say(201, None)
                gateway.is_cut = False

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
    lake._proven.add(gateway.address)
    gateway.of_renames = [(200, {"boolean": done})]
    with pytest.raises(FileSystemError, match=r"RENAME is answered .*; name the NameNodes themselves") as raised:
        lake.rename("staged", "entry")
    assert type(raised.value) is kind
    gateway.of_renames = [(200, None)]
    lake.rename("staged", "entry")


@pytest.mark.parametrize("status", [204, 302, 307, 500, 502, 504])
def test_what_something_in_between_answers_says_nothing_of_a_rename(
    gateway: Gateway, lake: FileSystem, status: int
) -> None:
    assert isinstance(lake, WebHdfsFileSystem)
    lake._proven.add(gateway.address)
    gateway.of_renames = [(status, None), (404, ABSENT)]
    with pytest.raises(UnknownOutcomeError, match=f"answers {status}: .*, and the next try says: not there"):
        lake.rename("staged", "entry")
    gateway.of_renames = [(503, None), (404, ABSENT)]
    with pytest.raises(FileNotFoundError):
        lake.rename("staged", "entry")


def test_each_address_is_proven(gateway: Gateway, lake: FileSystem) -> None:
    assert isinstance(lake, WebHdfsFileSystem)
    lake._proven.add("another:9870")
    with pytest.raises(FileSystemError, match="RENAME of nothing is no error"):
        lake.rename("staged", "entry")


def test_a_refusal_for_another_reason_proves_nothing(gateway: Gateway, lake: FileSystem) -> None:
    gateway.of_probe = gateway.of_create = 403, DENIED
    gateway.of_renames = [(200, None)]
    lake.rename("staged", "entry")
    gateway.of_probe, gateway.of_create = (404, ABSENT), None
    with pytest.raises(FileSystemError, match="CREATE makes the parent"):
        lake.rename("staged", "entry")


def test_what_a_gateway_made_without_an_answer_is_found_and_removed(gateway: Gateway, lake: FileSystem) -> None:
    gateway.of_probe = 404, ABSENT
    gateway.is_cut = True
    with pytest.raises(UnknownOutcomeError, match=r"and the next try says: no NameNode answers here.*CREATE makes"):
        lake.rename("staged", "entry")
    assert gateway.files == set()
    assert ("RENAME", "/lake/staged") not in gateway.asked


@pytest.mark.parametrize(
    ("said", "is_certain"),
    [
        ("[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] bad record", False),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", False),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", True),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", True),
    ],
)
def test_tls_that_fails_behind_its_handshake_says_nothing_of_an_act(
    monkeypatch: pytest.MonkeyPatch, said: str, is_certain: bool
) -> None:
    with open_filesystem("swebhdfs://127.0.0.1:1/lake", FileSystemSettings(deadline_s=60)) as lake:
        assert isinstance(lake, WebHdfsFileSystem)
        faults: list[Exception] = []

        def fail(*_: object, **__: object) -> None:
            raise faults.pop(0)

        monkeypatch.setattr(lake._servers._session, "request", fail)
        for act, kind in (
            (lake.delete, UnavailableError if is_certain else UnknownOutcomeError),
            (lake.list, UnavailableError if is_certain else FileExistsError),
        ):
            faults[:] = [requests.exceptions.SSLError(ssl.SSLError(1, said)), FileExistsError(17, "taken")]
            with pytest.raises(kind) as raised:
                act("path")
            assert len(faults) == is_certain
            if kind is not FileExistsError:
                assert "check ca_file and the certificate" in str(raised.value)


def test_a_server_without_tls_is_told_of_at_once(gateway: Gateway) -> None:
    with open_filesystem(f"swebhdfs://{gateway.address}/lake", FileSystemSettings(deadline_s=600)) as lake:
        for act in (lake.delete, lake.list):
            with pytest.raises(UnavailableError, match="check ca_file and the certificate"):
                act("path")
