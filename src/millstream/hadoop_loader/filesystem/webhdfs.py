"""HDFS over HTTP: its REST interface (WebHDFS), for clusters whose RPC cannot be reached from here.

The session is that of the package `hdfs`; the requests are made here, since that package sends a rename again after a
time-out, to the next NameNode, as if nothing could have happened, and knows neither `renameoptions` nor `createparent`.
What differs from RPC:

    RENAME moves *into* a directory that is at the target, unless renameoptions=NONE is said. HttpFS, which speaks the
        same language, takes no notice of it: it answers {"boolean": false} where a NameNode names the exception, and
        true for what went into a directory. With createparent it is the same. So a server is asked, before the first
        file is created or renamed, for two things that only one of that kind would do.
    CREATE answers only when all bytes are there, so `create` makes an empty file, which settles whose it is, and the
        bytes follow by APPEND, whose request stays open from the first chunk to the next `sync` or `close`.
    A connection that is cut ends the file as if whole, with what had arrived: a file is renamed only after its length
        was checked, as everywhere.
    There is no hsync: `sync` ends the request, which closes the blocks, and the next chunk opens another.
    DataNodes serve the bytes; NameNodes answer with their address. Proxies of one's surroundings are not used.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import http.client
import json
import os
import secrets
import ssl
import threading
import traceback
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import hdfs  # type: ignore[import-untyped]
import requests

from millstream.hadoop_loader.filesystem.errors import (
    AccessDeniedError,
    FileSystemError,
    UnavailableError,
    UnknownOutcomeError,
)
from millstream.hadoop_loader.filesystem.hadoop_conf import namenodes, read_properties
from millstream.hadoop_loader.filesystem.interface import ClosedAtEnd, FileStatus, checked_path, parent_of
from millstream.hadoop_loader.filesystem.output import ChunkedOutputFile
from millstream.hadoop_loader.filesystem.remote import (
    KERBEROS_REMEDY,
    NotAuthenticatedError,
    NotBegunError,
    RemoteCalls,
    UnansweredError,
    java_error,
    missing_directories,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from millstream.hadoop_loader.filesystem.settings import FileSystemSettings

_PREFIX: Final = "/webhdfs/v1"
_BYTES: Final = {"Content-Type": "application/octet-stream"}
_ABANDON_DEADLINE_S: Final = 5.0
# Bytes of an error's text that are read and repeated.
_TEXT_BYTES_MAX: Final = 64 * 1024
# What is answered to all that is done. Redirections (locations are asked for as JSON) are of something in between.
_DONE: Final = (http.client.OK, http.client.CREATED)
# What a proxy answers, in words of its own, whose server may have done what it was asked for.
_OF_PROXIES: Final = (http.client.INTERNAL_SERVER_ERROR, http.client.BAD_GATEWAY, http.client.GATEWAY_TIMEOUT)
# Of a certificate that we do not believe, and of ours, which we lack: TLS 1.3 tells that behind its handshake.
_REFUSED_BY_TLS: Final = ("CERTIFICATE_VERIFY_FAILED", "ALERT_CERTIFICATE_REQUIRED")
_TLS_REMEDY: Final = "check ca_file and the certificate of the server"
# Of a file that neither takes another's place nor makes its parent.
_NEW: Final[dict[str, str | int]] = {"overwrite": "false", "createparent": "false"}
# A name that nobody has begins with it: readers of tables, and the loader, pass over it.
_PROBE: Final = "_millstream-probe-"
_GATEWAY: Final = "no NameNode answers here, but HttpFS or another gateway, where two runs could commit the same"
_GATEWAY_REMEDY: Final = "name the NameNodes themselves: webhdfs://NAMENODE:9870, or hdfs://NAMENODE:8020"


class WebHdfsFileSystem(ClosedAtEnd):
    """The FileSystem (see the interface) of one directory of an HDFS, over HTTP or HTTPS."""

    def __init__(self, scheme: str, authority: str, root: str, settings: FileSystemSettings) -> None:
        """`scheme` is webhdfs or swebhdfs, `authority` HOST:PORT or a name service, `root` as of HdfsFileSystem."""
        self.uri = f"{scheme}://{authority}{root}"
        self._root = root
        self._settings = settings
        kind = "https" if scheme == "swebhdfs" else "http"
        addresses = [authority] if ":" in authority else namenodes(read_properties(settings), authority, kind)
        if not addresses:
            raise ValueError(
                f"{scheme}://{authority}: neither a port nor a name service that the job or its Hadoop conf directory"
                f" describes; write {scheme}://HOST:PORT, or name the directory or the NameNodes"
            )
        self._kind = kind
        self._lock = threading.Lock()
        # The one asked first is the one that answered last.
        self._addresses = addresses
        self._tls = ssl.create_default_context(cafile=settings.ca_file) if kind == "https" else None
        self._session = self._new_session()
        # Those that have been seen to be servers that neither replace, nor make parents, unasked.
        self._proven: set[str] = set()
        # One name for all tries: what an earlier one has made, whose answer was lost, is found and removed.
        self._probe = f"{_PROBE}{secrets.token_hex(8)}"
        self._calls = RemoteCalls(
            self.uri, settings.deadline_s, settings.calls_max, self._translate, self._next_address
        )

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = self._settings.ca_file or True
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=self._settings.calls_max)
        session.mount(f"{self._kind}://", adapter)
        url = f"{self._kind}://{self._addresses[0]}"
        kerberos = self._settings.kerberos
        if kerberos is None:
            hdfs.InsecureClient(url, user=self._settings.user or getpass.getuser(), session=session)
        else:
            from millstream.hadoop_loader.filesystem.negotiate import NegotiateAuth

            session.auth = NegotiateAuth(kerberos)
        return session

    def create(self, path: str) -> WebHdfsOutputFile:
        """A new file, with the attributes of the settings."""
        settings = self._settings
        query = dict(_NEW)
        if settings.permission is not None:
            query["permission"] = f"{settings.permission:o}"
        if settings.replication is not None:
            query["replication"] = settings.replication
        if settings.block_size_bytes is not None:
            query["blocksize"] = settings.block_size_bytes
        self._calls.act(path, partial(self._create_proven, self._name(path), query))
        return WebHdfsOutputFile(self, path)

    def _create_proven(self, name: str, query: dict[str, str | int]) -> None:
        self._create(self._proven_address(), name, query)
        self._adopt(name)

    def _create(self, address: str, name: str, query: dict[str, str | int]) -> None:
        location = self._ask("PUT", name, "CREATE", at=address, noredirect="true", **query)["Location"]
        with closing(self._datanode(location)) as connection:
            connection.request("PUT", _target(location, name), body=b"", headers=_BYTES)
            _check(connection.getresponse(), location)

    def open(self, path: str) -> WebHdfsInputFile:
        """A file to read."""
        found = self.status(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._address(path))
        if found.is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._address(path))
        return WebHdfsInputFile(self, path, found.length)

    def rename(self, source: str, target: str) -> None:
        """Rename without replacing, in one step of the NameNode."""
        self._calls.act(target, partial(self._rename, source, target))

    def _rename(self, source: str, target: str) -> None:
        address = self._proven_address()
        query = {"destination": self._name(target), "renameoptions": "NONE"}
        answer = self._ask("PUT", self._name(source), "RENAME", at=address, **query)
        if answer is None:
            return
        # "false" has done nothing; what "true" did, and where, is for a look to find out.
        kind = FileSystemError if answer == {"boolean": False} else UnknownOutcomeError
        what = f"{_GATEWAY}: RENAME is answered {json.dumps(answer)}"
        raise kind(what, uri=self.uri, path=target, remedy=_GATEWAY_REMEDY)

    def _proven_address(self) -> str:
        """The address that is asked first, of which was seen, once, that it refuses a rename by its reason and that a
        create makes no parent; FileSystemError if not.

        Both are asked of a directory that nobody has, so a NameNode does nothing at all. Who is refused for another
        reason, say since the user may not write there, learns it from what is asked next, and the next act asks again.
        It is part of the act, within its deadline.
        """
        with self._lock:
            address = self._addresses[0]
        if address in self._proven:
            return address
        directory = self._name(self._probe)
        absent = f"{directory}/absent"
        rename = partial(
            self._ask, "PUT", absent, "RENAME", at=address, destination=f"{absent}-renamed", renameoptions="NONE"
        )
        create = partial(self._create, address, f"{directory}/file", dict(_NEW))
        is_proven = self._finds_nothing(rename, "RENAME of nothing is no error")
        try:
            is_proven &= self._finds_nothing(create, "CREATE makes the parent")
        except FileSystemError:
            with contextlib.suppress(Exception):
                self._ask("DELETE", directory, "DELETE", at=address, recursive="true")
            raise
        if is_proven:
            self._proven.add(address)
        return address

    def _finds_nothing(self, function: Callable[[], object], otherwise: str) -> bool:
        """Whether it is refused since nothing is there, not for another reason; FileSystemError if it is done."""
        try:
            function()
        except _RefusedError as error:
            meaning = error.meaning(self.uri, "")
            if isinstance(meaning, (NotBegunError, UnansweredError)):
                raise
            # One that is there was made by a first try whose answer was lost.
            if not isinstance(meaning, FileExistsError):
                return isinstance(meaning, (FileNotFoundError, NotADirectoryError))
        raise FileSystemError(f"{_GATEWAY}: {otherwise}", uri=self.uri, remedy=_GATEWAY_REMEDY)

    def make_directory(self, path: str) -> None:
        """A directory with its parents."""
        if self._settings.owner is None and self._settings.group is None:
            self._calls.act(path, partial(self._make_directory, self._name(path)))
            return
        for child in missing_directories(self, path):
            self._calls.act(child, partial(self._make_directory, self._name(child)))

    def make_child(self, path: str) -> None:
        """One directory; MKDIRS makes parents, so they are looked for first."""
        if self.status(path) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._address(path))
        parent = self.status(parent_of(path))
        if parent is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._address(path))
        self._calls.act(path, partial(self._make_directory, self._name(path)))

    def _make_directory(self, name: str) -> None:
        permission = self._settings.directory_permission
        query = {} if permission is None else {"permission": f"{permission:o}"}
        self._ask("PUT", name, "MKDIRS", **query)
        self._adopt(name)

    def status(self, path: str) -> FileStatus | None:
        """What is at `path`; None for nothing, and for a child of a file."""
        name = self._name(path)
        try:
            answer = self._calls.read(path, lambda: self._ask("GET", name, "GETFILESTATUS"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _status(path, answer["FileStatus"])

    def list(self, path: str) -> list[FileStatus]:
        """The children by name."""
        name = self._name(path)
        answer = self._calls.read(path, lambda: self._ask("GET", name, "LISTSTATUS"))
        found = answer["FileStatuses"]["FileStatus"]
        if len(found) == 1 and not found[0]["pathSuffix"]:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._address(path))
        prefix = f"{path}/" if path else ""
        return sorted(_status(prefix + entry["pathSuffix"], entry) for entry in found)

    def delete(self, path: str, recursive: bool = False) -> bool:
        """Remove a file or a directory."""
        name = self._name(path)
        said = "true" if recursive else "false"
        try:
            answer = self._calls.act(path, lambda: self._ask("DELETE", name, "DELETE", recursive=said))
        except NotADirectoryError:
            return False
        return bool(answer["boolean"])

    def set_attributes(
        self,
        path: str,
        *,
        permission: int | None = None,
        owner: str | None = None,
        group: str | None = None,
        replication: int | None = None,
    ) -> None:
        """Change what is given."""
        name = self._name(path)

        def change() -> None:
            if permission is not None:
                self._ask("PUT", name, "SETPERMISSION", permission=f"{permission:o}")
            if owner is not None or group is not None:
                self._ask("PUT", name, "SETOWNER", owner=owner, group=group)
            if replication is not None:
                self._ask("PUT", name, "SETREPLICATION", replication=replication)

        self._calls.act(path, change)

    def close(self) -> None:
        """Give up the connections and the threads that wait."""
        self._calls.close()
        self._session.close()

    def _adopt(self, name: str) -> None:
        if self._settings.owner is not None or self._settings.group is not None:
            self._ask("PUT", name, "SETOWNER", owner=self._settings.owner, group=self._settings.group)

    def _ask(self, method: str, name: str, operation: str, at: str = "", **query: str | int | None) -> Any:
        """One request to one NameNode, that `at` an address or the one asked first; its JSON, or None if it answers
        with nothing. Raises what `_translate` knows.
        """
        with self._lock:
            address = at or self._addresses[0]
        answer = self._session.request(
            method,
            f"{self._kind}://{address}{_PREFIX}{quote(name)}",
            params={"op": operation, **{key: value for key, value in query.items() if value is not None}},
            headers=_BYTES,
            timeout=self._settings.deadline_s,
            allow_redirects=False,
        )
        if answer.status_code not in _DONE:
            raise _RefusedError(answer.status_code, answer.content[:_TEXT_BYTES_MAX], address)
        return answer.json() if answer.content else None

    def _datanode(self, location: str) -> http.client.HTTPConnection:
        """A connection to where a NameNode sent us; the caller closes it."""
        url = urlsplit(location)
        if url.scheme == "https":
            tls = self._tls or ssl.create_default_context(cafile=self._settings.ca_file)
            return http.client.HTTPSConnection(url.netloc, timeout=self._settings.deadline_s, context=tls)
        return http.client.HTTPConnection(url.netloc, timeout=self._settings.deadline_s)

    def _next_address(self) -> None:
        with self._lock:
            self._addresses = self._addresses[1:] + self._addresses[:1]

    def _name(self, path: str) -> str:
        return f"{self._root}/{checked_path(path)}" if path else self._root or "/"

    def _address(self, path: str) -> str:
        return f"{self.uri}/{path}"

    def _translate(self, error: BaseException, path: str) -> BaseException:
        """What a refusal or a failed connection means."""
        match error:
            case _RefusedError():
                problem = error.meaning(self.uri, path)
                if isinstance(problem, NotBegunError):
                    self._next_address()
                return problem
            case NotAuthenticatedError():
                return AccessDeniedError(str(error), uri=self.uri, path=path, remedy=KERBEROS_REMEDY)
            case requests.exceptions.SSLError() | ssl.SSLError():
                if _is_of_handshake(error):
                    return UnavailableError(str(error), uri=self.uri, path=path, remedy=_TLS_REMEDY)
                return UnansweredError(f"{error} ({_TLS_REMEDY})")
            case requests.exceptions.ConnectTimeout():
                self._next_address()
                return NotBegunError(str(error))
            case requests.exceptions.ConnectionError() if "NewConnectionError" in repr(error):
                self._next_address()
                return NotBegunError(str(error))
            case requests.exceptions.RequestException() | http.client.HTTPException() | OSError():
                known = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
                return error if isinstance(error, known) else UnansweredError(f"{type(error).__name__}: {error}")
        return error


class WebHdfsOutputFile(ChunkedOutputFile):
    """A file of HDFS being written over HTTP: one APPEND request at a time, in chunked encoding."""

    def __init__(self, filesystem: WebHdfsFileSystem, path: str) -> None:
        super().__init__(path)
        self._filesystem = filesystem
        self._location = ""
        # The request under way, to which chunks are added; None before the first and after `sync`.
        self._connection: http.client.HTTPConnection | None = None
        # From `_give_up` on: a call that was left at its deadline may still come to open a request, for nobody.
        self._is_given_up = False
        self._reachable = True

    def _send(self, data: memoryview) -> None:
        self._call(partial(self._send_chunk, data))

    def _send_chunk(self, data: memoryview) -> None:
        connection = self._connection or self._append()
        connection.send(b"%x\r\n" % data.nbytes)
        connection.send(data)
        connection.send(b"\r\n")

    def _append(self) -> http.client.HTTPConnection:
        filesystem = self._filesystem
        name = filesystem._name(self.path)
        answer = filesystem._ask("POST", name, "APPEND", noredirect="true")
        self._location = answer["Location"]
        connection = filesystem._datanode(self._location)
        try:
            connection.putrequest("POST", _target(self._location, name))
            connection.putheader("Transfer-Encoding", "chunked")
            connection.putheader("Content-Type", _BYTES["Content-Type"])
            connection.endheaders()
        except BaseException:
            connection.close()
            raise
        # Chunks go into this request or nowhere: a connection that was closed would open itself again.
        connection.auto_open = 0
        self._connection = connection
        if self._is_given_up:
            connection.close()
        return connection

    def _sync(self) -> None:
        if self._connection is not None:
            self._call(self._end_request)

    def _end_request(self) -> None:
        connection = self._connection
        assert connection is not None, f"{self.path} has no request under way"
        connection.send(b"0\r\n\r\n")
        with closing(connection):
            self._connection = None
            _check(connection.getresponse(), self._location)

    def _finish(self) -> None:
        self._sync()

    def _give_up(self) -> None:
        self._is_given_up = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._reachable:
            filesystem = self._filesystem
            name = filesystem._name(self.path)
            filesystem._calls.act_once(
                self.path, lambda: filesystem._ask("DELETE", name, "DELETE"), _ABANDON_DEADLINE_S
            )

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._filesystem._calls.act_once(self.path, partial(self._explained, function))
        except (UnavailableError, UnknownOutcomeError):
            self._reachable = False
            raise

    def _explained(self, function: Callable[[], None]) -> None:
        """Run `function`; a connection that the DataNode has closed has often its reason to be read still."""
        try:
            function()
        except (BrokenPipeError, ConnectionResetError):
            connection = self._connection
            if connection is None:
                raise
            with contextlib.suppress(OSError, http.client.HTTPException):
                _check(connection.getresponse(), self._location)
            raise


class _Stream(NamedTuple):
    """An answer that brings a file from `position` on, and has been read up to there."""

    position: int
    answer: http.client.HTTPResponse
    connection: http.client.HTTPConnection

    def close(self) -> None:
        """Give it up; an answer after which the server closes has the connection to itself."""
        self.answer.close()
        self.connection.close()


class WebHdfsInputFile(ClosedAtEnd):
    """A file of HDFS being read over HTTP: one request a range, and one for all that is read from there on in a row."""

    def __init__(self, filesystem: WebHdfsFileSystem, path: str, size: int) -> None:
        self.path = path
        self.size = size
        self._filesystem = filesystem
        self._lock = threading.Lock()
        self._closed = False
        # Where the range that was read last ended: what begins there is read in a row.
        self._read_until = -1
        # An answer that brings more than was asked for so far; taken out by whoever reads from it.
        self._stream: _Stream | None = None

    def read_at(self, position: int, size: int) -> bytes:
        """`size` bytes from `position`, fewer at the end."""
        if self._closed:
            raise ValueError(f"{self.path} is closed")
        size = max(0, min(size, self.size - position))
        if not size:
            return b""
        return self._filesystem._calls.read(self.path, partial(self._read, position, size))

    def _read(self, position: int, size: int) -> bytes:
        with self._lock:
            stream, self._stream = self._stream, None
            in_a_row = position == self._read_until
            self._read_until = position + size
        if stream is not None and stream.position != position:
            stream.close()
            stream = None
        if stream is None:
            stream = self._ask(position, None if in_a_row else size)
        try:
            data = _exactly(stream.answer, size)
        except BaseException:
            stream.close()
            raise
        self._keep(stream._replace(position=position + size))
        return data

    def _ask(self, position: int, size: int | None) -> _Stream:
        filesystem = self._filesystem
        name = filesystem._name(self.path)
        found = filesystem._ask("GET", name, "OPEN", offset=position, length=size, noredirect="true")
        location = found["Location"]
        connection = filesystem._datanode(location)
        try:
            connection.request("GET", _target(location, name))
            answer = connection.getresponse()
            if answer.status not in _DONE:
                _check(answer, location)
        except BaseException:
            connection.close()
            raise
        return _Stream(position, answer, connection)

    def _keep(self, stream: _Stream) -> None:
        """Keep an answer that brings more, unless another thread has left one or the file is closed."""
        if not stream.answer.isclosed() and stream.position < self.size:
            with self._lock:
                if self._stream is None and not self._closed:
                    self._stream = stream
                    return
        stream.close()

    def close(self) -> None:
        """Give up an answer that would bring more; further reads are refused."""
        with self._lock:
            self._closed = True
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class _RefusedError(Exception):
    """An answer that is not _DONE: `status` and what was said, by `server`."""

    def __init__(self, status: int, content: bytes, server: str) -> None:
        super().__init__(f"{server} answers {status}")
        self.status = status
        self.content = content

    def meaning(self, uri: str, path: str) -> Exception:
        """What it means to the interface."""
        try:
            said = json.loads(self.content)["RemoteException"]
            java_class, message = str(said.get("javaClassName") or said["exception"]), str(said.get("message") or "")
        except (ValueError, KeyError, TypeError):
            text = f"{self}: {self.content[:200]!r}"
            if self.status == http.client.UNAUTHORIZED:
                return AccessDeniedError(text, uri=uri, path=path, remedy=KERBEROS_REMEDY)
            if self.status == http.client.SERVICE_UNAVAILABLE:
                return NotBegunError(text)
            if self.status < http.client.BAD_REQUEST or self.status in _OF_PROXIES:
                return UnansweredError(text)
            return FileSystemError(text, uri=uri, path=path)
        return java_error(java_class, message, uri=uri, path=path)


def _check(answer: http.client.HTTPResponse, location: str) -> bytes:
    """The body of a DataNode's answer, which is closed then; _RefusedError for one that is not _DONE."""
    with answer:
        if answer.status not in _DONE:
            raise _RefusedError(answer.status, answer.read(_TEXT_BYTES_MAX), urlsplit(location).netloc)
        return answer.read()


def _is_of_handshake(error: BaseException) -> bool:
    """Whether TLS failed before anything was asked. A server that ends a handshake may only be about to stop."""
    if any(words in repr(error) for words in _REFUSED_BY_TLS):
        return True
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLError) and not isinstance(found, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return any(frame.f_code.co_name == "do_handshake" for frame, _ in traceback.walk_tb(found.__traceback__))
        found = found.__cause__ or found.__context__
    return False


def _exactly(answer: http.client.HTTPResponse, size: int) -> bytes:
    """The next `size` bytes of an answer; IncompleteRead if it ends before."""
    data = answer.read(size)
    if len(data) != size:
        raise http.client.IncompleteRead(data, size - len(data))
    return data


def _target(location: str, name: str) -> str:
    """What to ask the DataNode of `location` for; in the path there, names are not escaped as HTTP wants it."""
    return f"{_PREFIX}{quote(name)}?{urlsplit(location).query}"


def _status(path: str, found: dict[str, Any]) -> FileStatus:
    is_directory = found["type"] == "DIRECTORY"
    return FileStatus(path, 0 if is_directory else found["length"], is_directory, found["modificationTime"])
