"""HDFS by Hadoop's own RPC, through hdfs-native (a Rust client; no JVM): the destination of most jobs.

What that client does that a writer must know, and what is made of it here:

    FileWriter is an io.RawIOBase, so an exception in its `with` block, and the collector of garbage, close the file as
        if it were whole. Its inner writer does not: that is what is used, and a file dropped stays unclosed.
    close() finds the last block unreported and waits 0.5 s. Nothing mends that but closing several files at a time.
    With the NameNode away a call waits for it, 188 s for a write. Calls run with deadlines, and after a missed one
        the client is dropped. The next call makes another, which asks the NameNodes in another order.
    A call whose connection is lost is sent again by the client itself, so "exists" may mean that it has taken effect.
    mkdirs of what is there succeeds, so `make_child` looks first: two at once may both succeed.
    It copies a memoryview or an Arrow buffer byte by byte, at 46 MB/s; bytes and bytearrays at once.
    A range that leaves the file is a panic; ranges are cut to the file.
    Its user under simple authentication is a variable of the process, HADOOP_USER_NAME.
    Names with a colon are refused by HDFS itself.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import hdfs_native

from millstream.hadoop_loader.filesystem.errors import (
    AccessDeniedError,
    FileSystemError,
    UnavailableError,
    UnknownOutcomeError,
)
from millstream.hadoop_loader.filesystem.hadoop_conf import namenode_ids, namenodes, read_properties
from millstream.hadoop_loader.filesystem.interface import ClosedAtEnd, FileStatus, checked_path
from millstream.hadoop_loader.filesystem.output import ChunkedOutputFile
from millstream.hadoop_loader.filesystem.remote import (
    KERBEROS_REMEDY,
    NotBegunError,
    RemoteCalls,
    UnansweredError,
    java_error,
    missing_directories,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hdfs_native._internal import FileStatus as NativeStatus
    from hdfs_native._internal import RawFileReader, RawFileWriter

    from millstream.hadoop_loader.filesystem.settings import FileSystemSettings

# How long giving up a file may take: it happens where something else has failed already.
_ABANDON_DEADLINE_S: Final = 5.0
# Bytes asked for at a time: twice as fast as 64 MB, by the clock and by the processor.
_PIECE_BYTES: Final = 4 << 20
_LOOK_TIMEOUT_S: Final = 0.5
_RPC_ERROR: Final = re.compile(r'^(?:Fatal)?RPCError\("([\w.$]+)", "(.*)"\)$', re.DOTALL)
_KERBEROS_ERRORS: Final = ("GSSAPIError", "SASLError", "NoSASLMechanism")


class HdfsFileSystem(ClosedAtEnd):
    """The FileSystem (see the interface) of one directory of an HDFS, by RPC."""

    def __init__(self, authority: str, root: str, settings: FileSystemSettings) -> None:
        """`authority` is HOST:PORT or a name service; `root` an absolute path without a slash at its end ("" for /)."""
        self.uri = f"hdfs://{authority}{root}"
        self._root = root
        self._authority = authority
        self._settings = settings
        self._properties = read_properties(settings)
        # NameNodes are asked in this order; moved on by one whenever a client is dropped.
        self._namenode_ids = [] if ":" in authority else namenode_ids(self._properties, authority)
        if ":" not in authority and not self._namenode_ids:
            raise ValueError(
                f"hdfs://{authority}: neither a port nor a name service that the job or its Hadoop conf directory"
                " describes; write hdfs://HOST:PORT, or name the directory or the NameNodes"
            )
        self._lock = threading.Lock()
        self._client: hdfs_native.Client | None = None
        self._client_made = 0.0
        self._user = _ProcessUser.take(settings.user) if settings.kerberos is None else None
        self._calls = RemoteCalls(
            self.uri, settings.deadline_s, settings.calls_max, self._translate, self._drop, self._reachable
        )

    def create(self, path: str) -> HdfsOutputFile:
        """A new file, with the attributes of the settings."""
        writer = self._calls.act(path, partial(self._create, self._name(path)))
        return HdfsOutputFile(self, path, writer)

    def _create(self, name: str) -> RawFileWriter:
        settings = self._settings
        client = self._connected()
        options = hdfs_native.WriteOptions(
            block_size=settings.block_size_bytes,
            replication=settings.replication,
            permission=settings.permission,
            overwrite=False,
            create_parent=False,
        )
        writer = client.inner.create(name, options)
        self._adopt(client, name)
        return writer

    def open(self, path: str) -> HdfsInputFile:
        """A file to read."""
        name = self._name(path)
        reader = self._calls.read(path, lambda: self._connected().inner.read(name))
        return HdfsInputFile(self, path, reader)

    def rename(self, source: str, target: str) -> None:
        """Rename without replacing, in one step of the NameNode."""
        old, new = self._name(source), self._name(target)
        self._calls.act(target, lambda: self._connected().rename(old, new, overwrite=False))

    def make_directory(self, path: str) -> None:
        """A directory with its parents."""
        settings = self._settings
        if settings.owner is None and settings.group is None:
            self._calls.act(path, partial(self._make_directory, self._name(path), True))
            return
        for child in missing_directories(self, path):
            self._calls.act(child, partial(self._make_directory, self._name(child), child == ""))

    def make_child(self, path: str) -> None:
        """One directory."""
        if self.status(path) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self._address(path))
        self._calls.act(path, partial(self._make_directory, self._name(path), False))

    def _make_directory(self, name: str, parents: bool) -> None:
        permission = self._settings.directory_permission
        client = self._connected()
        client.mkdirs(name, 0o755 if permission is None else permission, create_parent=parents)
        self._adopt(client, name)

    def status(self, path: str) -> FileStatus | None:
        """What is at `path`; None for nothing, and for a child of a file."""
        name = self._name(path)
        try:
            found = self._calls.read(path, lambda: self._connected().get_file_info(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _status(path, found)

    def list(self, path: str) -> list[FileStatus]:
        """The children by name."""
        name = self._name(path)
        found = self._calls.read(path, lambda: [*self._connected().list_status(name)])
        if len(found) == 1 and not found[0].isdir and found[0].path == name:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._address(path))
        prefix = f"{path}/" if path else ""
        return sorted(_status(prefix + status.path.rpartition("/")[2], status) for status in found)

    def delete(self, path: str, recursive: bool = False) -> bool:
        """Remove a file or a directory."""
        name = self._name(path)
        try:
            return self._calls.act(path, lambda: self._connected().delete(name, recursive))
        except NotADirectoryError:
            return False

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
            client = self._connected()
            if permission is not None:
                client.set_permission(name, permission)
            if owner is not None or group is not None:
                client.set_owner(name, owner, group)
            if replication is not None:
                client.set_replication(name, replication)

        self._calls.act(path, change)

    def close(self) -> None:
        """Give up the client and the threads that wait."""
        self._calls.close()
        with self._lock:
            self._client = None
        if self._user is not None:
            self._user.give_back()
            self._user = None

    def _adopt(self, client: hdfs_native.Client, name: str) -> None:
        if self._settings.owner is not None or self._settings.group is not None:
            client.set_owner(name, self._settings.owner, self._settings.group)

    def _connected(self) -> hdfs_native.Client:
        """The client; a new one if there is none, or if its tickets are due to be got anew."""
        kerberos = self._settings.kerberos
        with self._lock:
            client = self._client
            age_s = time.monotonic() - self._client_made
            if client is None or (kerberos is not None and age_s > kerberos.renewal_s):
                properties = dict(self._properties)
                if self._namenode_ids:
                    properties[f"dfs.ha.namenodes.{self._authority}"] = ",".join(self._namenode_ids)
                client = hdfs_native.Client(
                    f"hdfs://{self._authority}",
                    properties,
                    kerberos_principal=None if kerberos is None else kerberos.principal,
                    kerberos_keytab=None if kerberos is None else kerberos.keytab,
                    kerberos_cache=None if kerberos is None else kerberos.cache,
                )
                self._client, self._client_made = client, time.monotonic()
            return client

    def _drop(self) -> None:
        with self._lock:
            self._client = None
            self._namenode_ids = self._namenode_ids[1:] + self._namenode_ids[:1]

    def _reachable(self) -> str:
        """Whether NameNodes take connections: the client tries for minutes and says nothing meanwhile."""
        addresses = namenodes(self._properties, self._authority, "rpc") if self._namenode_ids else [self._authority]
        seen = []
        for address in addresses:
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_TIMEOUT_S).close()
            except (OSError, ValueError) as error:
                seen.append(f"{address}: {getattr(error, 'strerror', None) or error}")
            else:
                seen.append(f"{address} takes connections")
        return ", ".join(seen)

    def _name(self, path: str) -> str:
        return f"{self._root}/{checked_path(path)}" if path else self._root or "/"

    def _address(self, path: str) -> str:
        return f"{self.uri}/{path}"

    def _translate(self, error: BaseException, path: str) -> BaseException:
        """What one of the client's exceptions means."""
        text = str(error)
        if isinstance(error, (FileSystemError, ValueError)):
            return error
        if isinstance(error, FileNotFoundError):
            return java_error("FileNotFoundException", text, uri=self.uri, path=path)
        if isinstance(error, FileExistsError):
            return java_error("FileAlreadyExistsException", text, uri=self.uri, path=path)
        if isinstance(error, IsADirectoryError):
            return IsADirectoryError(errno.EISDIR, text, self._address(path))
        if isinstance(error, OSError):
            return UnansweredError(text)
        if match := _RPC_ERROR.match(text):
            problem = java_error(match[1], match[2].replace("\\n", "\n"), uri=self.uri, path=path)
            # One NameNode of several may have taken the call before another said that it is standby.
            in_doubt = isinstance(problem, NotBegunError) and len(self._namenode_ids) > 1
            return UnansweredError(str(problem)) if in_doubt else problem
        if text.startswith(_KERBEROS_ERRORS):
            return AccessDeniedError(text, uri=self.uri, path=path, remedy=KERBEROS_REMEDY)
        if text.startswith(("BlocksNotFound", "DataTransferError")):
            return UnansweredError(text)
        if type(error).__name__ == "PanicException" or isinstance(error, Exception):
            return FileSystemError(text, uri=self.uri, path=path)
        return error


class HdfsOutputFile(ChunkedOutputFile):
    """A file of HDFS being written."""

    def __init__(self, filesystem: HdfsFileSystem, path: str, writer: RawFileWriter) -> None:
        super().__init__(path)
        self._filesystem = filesystem
        # None once it is closed or was left to a call that has not returned.
        self._writer: RawFileWriter | None = writer
        self._reachable = True

    def _send(self, data: memoryview) -> None:
        # The client copies bytes and bytearrays at once, and anything else one byte after the other.
        whole = data.obj
        plain = whole if isinstance(whole, (bytes, bytearray)) and len(whole) == data.nbytes else bytes(data)
        self._call(lambda writer: writer.write(plain))

    def _sync(self) -> None:
        if self.size_bytes:
            self._call(lambda writer: writer.hsync())

    def _finish(self) -> None:
        self._call(lambda writer: writer.close())
        self._writer = None

    def _give_up(self) -> None:
        self._writer = None
        if self._reachable:
            filesystem = self._filesystem
            name = filesystem._name(self.path)
            filesystem._calls.act_once(
                self.path, lambda: filesystem._connected().delete(name, False), _ABANDON_DEADLINE_S
            )

    def _call(self, function: Callable[[RawFileWriter], object]) -> None:
        writer = self._writer
        assert writer is not None, f"{self.path} has no writer"
        try:
            self._filesystem._calls.act_once(self.path, lambda: function(writer))
        except (UnavailableError, UnknownOutcomeError):
            self._writer = None
            self._reachable = False
            raise


class HdfsInputFile(ClosedAtEnd):
    """A file of HDFS being read.

    A reader knows the places of the blocks as they were when it was made. After a failure the next try makes another:
    a NameNode that has just come back names none until the DataNodes report, and blocks move.
    """

    def __init__(self, filesystem: HdfsFileSystem, path: str, reader: RawFileReader) -> None:
        self.path = path
        self.size = reader.file_length()
        self._filesystem = filesystem
        self._reader: RawFileReader | None = reader
        self._is_closed = False

    def read_at(self, position: int, size: int) -> bytes:
        """`size` bytes from `position`, fewer at the end."""
        if self._is_closed:
            raise ValueError(f"{self.path} is closed")
        # The client panics at a range that leaves the file.
        size = max(0, min(size, self.size - position))
        if not size:
            return b""
        return self._filesystem._calls.read(self.path, partial(self._read_range, position, size))

    def _read_range(self, position: int, size: int) -> bytes:
        reader = self._reader
        if reader is None:
            filesystem = self._filesystem
            reader = filesystem._connected().inner.read(filesystem._name(self.path))
            if reader.file_length() != self.size:
                what = f"has {reader.file_length()} bytes, and had {self.size} when it was opened"
                raise FileSystemError(what, uri=filesystem.uri, path=self.path, remedy="open it anew")
            self._reader = reader
        try:
            return _read_range(reader, position, size)
        except BaseException:
            self._reader = None
            raise

    def close(self) -> None:
        """Give up the reader."""
        self._is_closed = True
        self._reader = None


class _ProcessUser:
    """The name under simple authentication, which hdfs-native takes from the process: one at a time for all of it."""

    _lock: Final = threading.Lock()
    _name: str | None = None
    _users = 0
    _before: str | None = None

    @classmethod
    def take(cls, name: str | None) -> Self | None:
        """Be `name` until it is given back; ValueError if the process is somebody else now."""
        if name is None:
            return None
        with cls._lock:
            if cls._users and cls._name != name:
                raise ValueError(
                    f"hdfs:// is used as {cls._name!r} by this process, and cannot be as {name!r} at the same time;"
                    " use webhdfs://, or a process of its own"
                )
            if not cls._users:
                cls._name, cls._before = name, os.environ.get("HADOOP_USER_NAME")
                os.environ["HADOOP_USER_NAME"] = name
            cls._users += 1
        return cls()

    def give_back(self) -> None:
        """Be again who the process was, once the last has given it back."""
        kind = type(self)
        with kind._lock:
            kind._users -= 1
            if not kind._users:
                if kind._before is None:
                    del os.environ["HADOOP_USER_NAME"]
                else:
                    os.environ["HADOOP_USER_NAME"] = kind._before


def _read_range(reader: RawFileReader, position: int, size: int) -> bytes:
    """A range by pieces: the client grows and copies one buffer for all of a range, slower the larger it is."""
    if size <= _PIECE_BYTES:
        return reader.read_range(position, size)
    end = position + size
    starts = range(position, end, _PIECE_BYTES)
    return b"".join([reader.read_range(start, min(_PIECE_BYTES, end - start)) for start in starts])


def _status(path: str, found: NativeStatus) -> FileStatus:
    return FileStatus(path, 0 if found.isdir else found.length, found.isdir, found.modification_time)
