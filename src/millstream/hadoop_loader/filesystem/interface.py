"""The one interface to destinations: what the commit log, writers and compaction need of a file system, no more.

Paths are relative to the root that the file system was opened at, with "/" between their parts and neither "." nor
".." among them; "" is the root itself. Every object is safe for use by several threads, but an OutputFile has one
writer at a time. Every call has the deadline the file system was opened with:

    a read whose deadline passes     raises UnavailableError
    an act whose deadline passes     raises UnknownOutcomeError: it may still take effect, later than this process knows

Atomic are `create` (who makes the file) and `rename`. Neither ever replaces what is there, and nothing but
`make_directory` makes a parent: the commit protocol stands on both. A file that is being written is no
file yet: it has a name, but its length and contents are certain only after `close`, so it is written under a name that
nobody reads and renamed when whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

# What one part of a path may take as UTF-8: on local disks, and on HDFS as it is set where nobody says otherwise.
NAME_BYTES_MAX: Final = 255


class FileStatus(NamedTuple):
    """What is at a path: `length` in bytes (0 for a directory), `modified_ms` since the epoch by the server's clock."""

    path: str
    length: int
    is_directory: bool
    modified_ms: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class ClosedAtEnd(ABC):
    """Something whose `close` is called at the end of its block."""

    @abstractmethod
    def close(self) -> None:
        """Give up what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@runtime_checkable
class InputFile(Protocol):
    """A file opened for reading; any thread may read any range of it."""

    path: str
    # The length it had when it was opened.
    size: int

    def read_at(self, position: int, size: int) -> bytes:
        """`size` bytes from `position` on, fewer only at the end of the file."""
        ...

    def close(self) -> None:
        """Give up what it holds; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class OutputFile(Protocol):
    """A file being written, from its start to its end.

    States: OPEN (write, sync) -> CLOSED (close: whole) | ABANDONED (abandon, or an error in its `with` block).
    After an error of write, sync or close nothing but `abandon` makes sense. An object dropped while OPEN counts as
    abandoned: nothing is ever closed as if whole because an exception passed by or a reference was lost.
    """

    path: str
    # Bytes taken by write so far, whether or not they are on disk.
    size_bytes: int

    def write(self, data: Buffer, /) -> int:
        """Append all of `data`, which may be used again at once; returns its size."""
        ...

    def sync(self) -> None:
        """Have everything written so far on disk (fsync; HDFS: hsync; WebHDFS has none, there only close does it)."""
        ...

    def close(self) -> None:
        """Write the rest and end the file. Only after this returns is it whole. A second call does nothing."""
        ...

    def abandon(self) -> bool:
        """Stop writing and try to delete what there is; never raises. What stays is for who cleans staging.

        Returns whether the file system answered: where it did not, further files had better be dropped.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class FileSystem(Protocol):
    """One root directory of a local disk or a Hadoop file system; see the module's text for deadlines and errors."""

    # The address it was opened at, without credentials and without a slash at its end.
    uri: str

    def create(self, path: str) -> OutputFile:
        """A new file. FileExistsError if the name is taken, FileNotFoundError if there is no such parent."""
        ...

    def open(self, path: str) -> InputFile:
        """A file to read. FileNotFoundError; IsADirectoryError."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name, at once and never in place of anything.

        FileExistsError if anything is at `target`; FileNotFoundError without `source` or the parent of `target`.
        A client may have sent it twice over a lost connection: FileExistsError can mean that one's own rename is done.
        """
        ...

    def make_directory(self, path: str) -> None:
        """A directory with all its parents; fine if it is there. FileExistsError or NotADirectoryError over a file."""
        ...

    def make_child(self, path: str) -> None:
        """One directory in a parent that is there. FileExistsError if the name is taken, else FileNotFoundError.

        No claim to anything: on HDFS two that make it at once may both succeed.
        """
        ...

    def status(self, path: str) -> FileStatus | None:
        """What is at `path`, or None."""
        ...

    def list(self, path: str) -> list[FileStatus]:
        """The direct children, by name. FileNotFoundError; NotADirectoryError for a file."""
        ...

    def delete(self, path: str, recursive: bool = False) -> bool:
        """Remove a file, or a directory with all it holds; False if nothing was there. DirectoryNotEmptyError."""
        ...

    def set_attributes(
        self,
        path: str,
        *,
        permission: int | None = None,
        owner: str | None = None,
        group: str | None = None,
        replication: int | None = None,
    ) -> None:
        """Change what is given. A local disk has no replication and ignores it."""
        ...

    def close(self) -> None:
        """Give up connections and threads. Files still being written are lost with them."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def checked_path(path: str) -> str:
    """`path` itself if it is one of the interface's relative paths, else ValueError."""
    if path and any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError(f"{path!r} is no relative path: parts between '/', none of them empty, '.' or '..'")
    return path


def parent_of(path: str) -> str:
    """The path of the directory that holds `path`; "" for a child of the root."""
    return path.rpartition("/")[0]
