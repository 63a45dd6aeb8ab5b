"""What can go wrong at a destination, by what its caller may conclude from it.

    FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError     Python's own: the answer is certain
    DirectoryNotEmptyError    deletion of a directory that holds something, without `recursive`
    UnavailableError          a read was not answered, or an act was refused before it could begin: nothing has happened
    UnknownOutcomeError       an act was sent and not answered: it may have happened, or happen later, or never
    AccessDeniedError         the user may not; nothing has happened
    QuotaExceededError        a quota of names or of space; nothing has happened, or a file has fewer bytes than written
    StorageFullError          no room on the disks; as with a quota
    FileSystemError           the base of them, and what a server says that is none of these

An UnknownOutcomeError is never a failure: whoever gets one looks (the commit log reads the entry's number) before it
concludes anything. Every message names the address and says what to do. All of them survive pickling, since workers
send them to their driver.
"""

from __future__ import annotations

from typing import Final


class FileSystemError(Exception):
    """A call on a file system failed: `what` happened at `uri` + `path`; `remedy` is what an operator can do."""

    # What to do where the place that raises knows nothing better.
    DEFAULT_REMEDY: Final[str] = "look into the file system's own log"

    def __init__(self, what: str, *, uri: str, path: str = "", remedy: str = "") -> None:
        self.what = what
        self.uri = uri
        self.path = path
        self.remedy = remedy or self._remedy()
        super().__init__(what)

    @classmethod
    def _remedy(cls) -> str:
        return cls.DEFAULT_REMEDY

    @property
    def address(self) -> str:
        """The whole address of what was to be read or changed."""
        return f"{self.uri.rstrip('/')}/{self.path}" if self.path else self.uri

    def __str__(self) -> str:
        return f"{self.address}: {self.what}; {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.uri, self.path, self.remedy))


def _rebuild(kind: type[FileSystemError], what: str, uri: str, path: str, remedy: str) -> FileSystemError:
    return kind(what, uri=uri, path=path, remedy=remedy)


class UnavailableError(FileSystemError):
    """The file system did not answer a read, or refused an act before it began. Trying again later is safe."""

    @classmethod
    def _remedy(cls) -> str:
        return "see that it runs and is reachable from here, then run again"


class UnknownOutcomeError(FileSystemError):
    """An act was sent and no answer came within its deadline: look whether it took effect, now or later."""

    @classmethod
    def _remedy(cls) -> str:
        return "see that it runs and is reachable from here; the next run finds out what took effect"


class AccessDeniedError(FileSystemError):
    """The user may not do this."""

    @classmethod
    def _remedy(cls) -> str:
        return "give the job's user the right to write there, or name another user or keytab in [destination]"


class QuotaExceededError(FileSystemError):
    """A quota of names or of space on a directory is used up."""

    @classmethod
    def _remedy(cls) -> str:
        return "raise the quota (hdfs dfsadmin -setQuota, -setSpaceQuota) or delete what is not needed, then run again"


class StorageFullError(FileSystemError):
    """No disk has room for another block."""

    @classmethod
    def _remedy(cls) -> str:
        return "free space or add disks, then run again"


class DirectoryNotEmptyError(FileSystemError):
    """A directory that holds something was to be deleted, not recursively."""

    @classmethod
    def _remedy(cls) -> str:
        return "delete it recursively, if all of it is to go"
