"""A destination in memory, with the promises of the loader's `FileSystem`: for simulations of many thousand acts.

Drivers that are to meet in one destination share a `MemoryFileSystem`, or wrap it each in a `FaultyFileSystem`. What is
written shows at once, as a prefix of the file, and the file is whole once it is closed: half files can be looked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

from millstream.hadoop_loader.filesystem import DirectoryNotEmptyError, FileStatus, FileSystemError, parent_of
from millstream.hadoop_loader.filesystem.interface import ClosedAtEnd, checked_path

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer


@dataclass(slots=True, eq=False)
class _Node:
    """A file (`data`) or a directory (`children` by name)."""

    modified_ms: int
    data: bytearray | None = None
    is_closed: bool = False
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.data is None


class MemoryFile(NamedTuple):
    """A file as it is at one moment; whole if it was closed."""

    path: str
    data: bytes
    is_whole: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class MemoryFileSystem(ClosedAtEnd):
    """See the module's text; `now_ms` stamps what changes."""

    def __init__(self, uri: str = "memory://test", *, now_ms: Callable[[], int] = lambda: 0) -> None:
        self.uri = uri
        self._now_ms = now_ms
        self._root = _Node(0)
        self._lock = threading.RLock()

    def create(self, path: str) -> MemoryOutputFile:
        """A new file, open and empty."""
        with self._lock:
            parent, name = self._parent(path)
            if name in parent.children:
                raise FileExistsError(path)
            node = _Node(self._now_ms(), bytearray())
            parent.children[name] = node
            parent.modified_ms = self._now_ms()
            return MemoryOutputFile(self, path, node)

    def open(self, path: str) -> MemoryInputFile:
        """What has been written to a file so far."""
        with self._lock:
            node = self._node(path)
            if node.data is None:
                raise IsADirectoryError(path)
            return MemoryInputFile(path, bytes(node.data))

    def rename(self, source: str, target: str) -> None:
        """Move a file or directory to a name that is free."""
        checked_path(target)
        with self._lock:
            old_parent, old_name = self._parent(source)
            if old_name not in old_parent.children:
                raise FileNotFoundError(source)
            if target == source:
                raise FileExistsError(target)
            if target.startswith(f"{source}/") and old_parent.children[old_name].is_directory:
                raise FileSystemError(f"cannot become its own child {target}", uri=self.uri, path=source)
            new_parent, new_name = self._parent(target)
            if new_name in new_parent.children:
                raise FileExistsError(target)
            new_parent.children[new_name] = old_parent.children.pop(old_name)
            new_parent.modified_ms = old_parent.modified_ms = self._now_ms()

    def make_directory(self, path: str) -> None:
        """A directory with its parents."""
        with self._lock:
            node = self._root
            for name in checked_path(path).split("/") if path else ():
                if not node.is_directory:
                    raise NotADirectoryError(path)
                if name not in node.children:
                    node.children[name] = _Node(self._now_ms())
                    node.modified_ms = self._now_ms()
                node = node.children[name]
            if not node.is_directory:
                raise FileExistsError(path)

    def make_child(self, path: str) -> None:
        """One directory."""
        with self._lock:
            parent, name = self._parent(path)
            if name in parent.children:
                raise FileExistsError(path)
            parent.children[name] = _Node(self._now_ms())
            parent.modified_ms = self._now_ms()

    def status(self, path: str) -> FileStatus | None:
        """What is there."""
        with self._lock:
            try:
                return self._status(path, self._node(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list(self, path: str) -> list[FileStatus]:
        """The children by name."""
        with self._lock:
            node = self._node(path)
            if not node.is_directory:
                raise NotADirectoryError(path)
            prefix = f"{path}/" if path else ""
            return [self._status(prefix + name, child) for name, child in sorted(node.children.items())]

    def delete(self, path: str, recursive: bool = False) -> bool:
        """Remove a file or directory."""
        with self._lock:
            try:
                parent, name = self._parent(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            if name not in parent.children:
                return False
            if parent.children[name].children and not recursive:
                raise DirectoryNotEmptyError("directory is not empty", uri=self.uri, path=path)
            del parent.children[name]
            parent.modified_ms = self._now_ms()
            return True

    def set_attributes(
        self,
        path: str,
        *,
        permission: int | None = None,
        owner: str | None = None,
        group: str | None = None,
        replication: int | None = None,
    ) -> None:
        """Nothing here has attributes; what is not there raises."""
        del permission, owner, group, replication
        with self._lock:
            self._node(path)

    def close(self) -> None:
        """There is nothing to give up."""

    def files(self, path: str = "") -> Iterator[MemoryFile]:
        """All files in and below a directory, in no order; none if there is no such directory."""
        with self._lock:
            try:
                nodes = [(path, self._node(path))]
            except (FileNotFoundError, NotADirectoryError):
                return
            while nodes:
                where, node = nodes.pop()
                if node.data is not None:
                    yield MemoryFile(where, bytes(node.data), node.is_closed)
                prefix = f"{where}/" if where else ""
                nodes.extend((prefix + name, child) for name, child in node.children.items())

    def _node(self, path: str) -> _Node:
        node = self._root
        for name in checked_path(path).split("/") if path else ():
            if not node.is_directory:
                raise NotADirectoryError(path)
            if name not in node.children:
                raise FileNotFoundError(path)
            node = node.children[name]
        return node

    def _parent(self, path: str) -> tuple[_Node, str]:
        parent = self._node(parent_of(path))
        if not parent.is_directory:
            raise NotADirectoryError(path)
        return parent, path.rpartition("/")[2]

    @staticmethod
    def _status(path: str, node: _Node) -> FileStatus:
        return FileStatus(path, len(node.data or b""), node.is_directory, node.modified_ms)


class MemoryInputFile(ClosedAtEnd):
    """A file's bytes as they were when it was opened."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.size = len(data)
        self._data: bytes | None = data

    def read_at(self, position: int, size: int) -> bytes:
        """A range of them."""
        if self._data is None:
            raise ValueError(f"{self.path} is closed")
        return self._data[position : position + size]

    def close(self) -> None:
        """Give the bytes up."""
        self._data = None


class MemoryOutputFile:
    """A file being written; states as in the interface."""

    def __init__(self, filesystem: MemoryFileSystem, path: str, node: _Node) -> None:
        self.path = path
        self.size_bytes = 0
        self._filesystem = filesystem
        self._node = node
        self._is_open = True
        self._is_abandoned = False

    def write(self, data: Buffer, /) -> int:
        """Append."""
        self._check_open()
        assert self._node.data is not None
        size = memoryview(data).nbytes
        self._node.data += data
        self.size_bytes += size
        return size

    def sync(self) -> None:
        """Memory has nothing to sync."""
        self._check_open()

    def close(self) -> None:
        """From now on it is whole."""
        if self._is_abandoned:
            self._check_open()
        if self._is_open:
            self._node.is_closed = True
            self._is_open = False

    def abandon(self) -> bool:
        """Delete it, if it still has its name."""
        if self._is_open:
            self._is_open, self._is_abandoned = False, True
            self._filesystem.delete(self.path)
        return True

    def _check_open(self) -> None:
        if not self._is_open:
            raise ValueError(f"{self.path} is closed or abandoned: nothing can be written to it any more")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
