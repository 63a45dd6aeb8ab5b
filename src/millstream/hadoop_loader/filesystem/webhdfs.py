"""HDFS over HTTP: its REST interface (WebHDFS), for clusters whose RPC cannot be reached from here.

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

The requests, and what answers mean: `webhdfs_servers.py`.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import secrets
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from millstream.hadoop_loader.filesystem.errors import FileSystemError, UnavailableError, UnknownOutcomeError
from millstream.hadoop_loader.filesystem.interface import ClosedAtEnd, FileStatus, checked_path, parent_of
from millstream.hadoop_loader.filesystem.output import ChunkedOutputFile
from millstream.hadoop_loader.filesystem.remote import (
    NotBegunError,
    RemoteCalls,
    UnansweredError,
    missing_directories,
)
from millstream.hadoop_loader.filesystem.webhdfs_servers import (
    BYTES,
    DONE,
    RefusedError,
    WebHdfsServers,
    check,
    target_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from millstream.hadoop_loader.filesystem.settings import FileSystemSettings

_ABANDON_DEADLINE_S: Final = 5.0
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
        self._servers = WebHdfsServers(self.uri, scheme, authority, settings)
        # Those that have been seen to be servers that neither replace, nor make parents, unasked.
        self._proven: set[str] = set()
        # One name for all tries: what an earlier one has made, whose answer was lost, is found and removed.
        self._probe = f"{_PROBE}{secrets.token_hex(8)}"
        self._calls = RemoteCalls(
            self.uri,
            settings.deadline_s,
            settings.calls_max,
            self._servers.translate,
            self._servers.turn_to_next,
        )

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
        location = self._servers.ask("PUT", name, "CREATE", at=address, noredirect="true", **query)["Location"]
        with closing(self._servers.datanode(location)) as connection:
            connection.request("PUT", target_of(location, name), body=b"", headers=BYTES)
            check(connection.getresponse(), location)

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
        answer = self._servers.ask("PUT", self._name(source), "RENAME", at=address, **query)
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
        address = self._servers.first
        if address in self._proven:
            return address
        directory = self._name(self._probe)
        absent = f"{directory}/absent"
        rename = partial(
            self._servers.ask,
            "PUT",
            absent,
            "RENAME",
            at=address,
            destination=f"{absent}-renamed",
            renameoptions="NONE",
        )
        create = partial(self._create, address, f"{directory}/file", dict(_NEW))
        is_proven = self._finds_nothing(rename, "RENAME of nothing is no error")
        try:
            is_proven &= self._finds_nothing(create, "CREATE makes the parent")
        except FileSystemError:
            with contextlib.suppress(Exception):
                self._servers.ask("DELETE", directory, "DELETE", at=address, recursive="true")
            raise
        if is_proven:
            self._proven.add(address)
        return address

    def _finds_nothing(self, function: Callable[[], object], otherwise: str) -> bool:
        """Whether it is refused since nothing is there, not for another reason; FileSystemError if it is done."""
        try:
            function()
        except RefusedError as error:
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
        self._servers.ask("PUT", name, "MKDIRS", **query)
        self._adopt(name)

    def status(self, path: str) -> FileStatus | None:
        """What is at `path`; None for nothing, and for a child of a file."""
        name = self._name(path)
        try:
            answer = self._calls.read(path, lambda: self._servers.ask("GET", name, "GETFILESTATUS"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _status(path, answer["FileStatus"])

    def list(self, path: str) -> list[FileStatus]:
        """The children by name."""
        name = self._name(path)
        answer = self._calls.read(path, lambda: self._servers.ask("GET", name, "LISTSTATUS"))
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
            answer = self._calls.act(path, lambda: self._servers.ask("DELETE", name, "DELETE", recursive=said))
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
                self._servers.ask("PUT", name, "SETPERMISSION", permission=f"{permission:o}")
            if owner is not None or group is not None:
                self._servers.ask("PUT", name, "SETOWNER", owner=owner, group=group)
            if replication is not None:
                self._servers.ask("PUT", name, "SETREPLICATION", replication=replication)

        self._calls.act(path, change)

    def close(self) -> None:
        """Give up the connections and the threads that wait."""
        self._calls.close()
        self._servers.close()

    def _adopt(self, name: str) -> None:
        if self._settings.owner is not None or self._settings.group is not None:
            self._servers.ask("PUT", name, "SETOWNER", owner=self._settings.owner, group=self._settings.group)

    def _name(self, path: str) -> str:
        return f"{self._root}/{checked_path(path)}" if path else self._root or "/"

    def _address(self, path: str) -> str:
        return f"{self.uri}/{path}"


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
        answer = filesystem._servers.ask("POST", name, "APPEND", noredirect="true")
        self._location = answer["Location"]
        connection = filesystem._servers.datanode(self._location)
        try:
            connection.putrequest("POST", target_of(self._location, name))
            connection.putheader("Transfer-Encoding", "chunked")
            connection.putheader("Content-Type", BYTES["Content-Type"])
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
            check(connection.getresponse(), self._location)

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
                self.path, lambda: filesystem._servers.ask("DELETE", name, "DELETE"), _ABANDON_DEADLINE_S
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
                check(connection.getresponse(), self._location)
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
        found = filesystem._servers.ask("GET", name, "OPEN", offset=position, length=size, noredirect="true")
        location = found["Location"]
        connection = filesystem._servers.datanode(location)
        try:
            connection.request("GET", target_of(location, name))
            answer = connection.getresponse()
            if answer.status not in DONE:
                check(answer, location)
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


def _exactly(answer: http.client.HTTPResponse, size: int) -> bytes:
    """The next `size` bytes of an answer; IncompleteRead if it ends before."""
    data = answer.read(size)
    if len(data) != size:
        raise http.client.IncompleteRead(data, size - len(data))
    return data


def _status(path: str, found: dict[str, Any]) -> FileStatus:
    is_directory = found["type"] == "DIRECTORY"
    return FileStatus(path, 0 if is_directory else found["length"], is_directory, found["modificationTime"])
