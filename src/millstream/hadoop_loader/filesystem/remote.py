"""What HDFS by RPC and HDFS over HTTP have in common: what its Java exceptions mean, and when a call is sent again.

A call that the server refused for now (safe mode after a start, a NameNode that is standby) has not begun: it is sent
again until its deadline. So is one whose connection was lost, but that may have taken effect. Whatever the next try
then says (the name is taken, or gone, a quota is used up), the first may have done it, so the outcome is *unknown*.
Bytes of a file are never sent twice: the file is broken, and its writer starts another.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from millstream.hadoop_loader.filesystem.deadlines import Deadlines
from millstream.hadoop_loader.filesystem.errors import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    FileSystemError,
    QuotaExceededError,
    StorageFullError,
    UnavailableError,
    UnknownOutcomeError,
)
from millstream.hadoop_loader.filesystem.interface import parent_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from millstream.hadoop_loader.filesystem.interface import FileSystem

T = TypeVar("T")

_PAUSE_MIN_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0

# The simple names of Java's classes, by what they mean here.
_NOT_BEGUN: Final = {"SafeModeException", "RetriableException", "StandbyException", "ObserverRetryOnActiveException"}
# What a NameNode says over HTTP of a block that no DataNode has reported so far, or whose DataNodes are away.
_NO_DATANODE: Final = "Failed to find datanode"
_NO_PLACE_YET: Final = ("nodes contain this block", _NO_DATANODE)
# A DataNode that asked the NameNode on our behalf and was not answered says so by Java's names.
_UNANSWERED: Final = {
    "ConnectException",
    "ConnectTimeoutException",
    "SocketException",
    "SocketTimeoutException",
    "EOFException",
    "ClosedChannelException",
    "NoRouteToHostException",
}
_OF_PYTHON: Final[dict[str, tuple[type[OSError], int]]] = {
    "FileNotFoundException": (FileNotFoundError, errno.ENOENT),
    "PathNotFoundException": (FileNotFoundError, errno.ENOENT),
    "LeaseExpiredException": (FileNotFoundError, errno.ENOENT),
    "FileAlreadyExistsException": (FileExistsError, errno.EEXIST),
    "AlreadyBeingCreatedException": (FileExistsError, errno.EEXIST),
    "RecoveryInProgressException": (FileExistsError, errno.EEXIST),
    "ParentNotDirectoryException": (NotADirectoryError, errno.ENOTDIR),
    "PathIsNotDirectoryException": (NotADirectoryError, errno.ENOTDIR),
}
_OF_OURS: Final[dict[str, type[FileSystemError]]] = {
    "PathIsNotEmptyDirectoryException": DirectoryNotEmptyError,
    "AccessControlException": AccessDeniedError,
    "AuthorizationException": AccessDeniedError,
    "SecurityException": AccessDeniedError,
    "InvalidToken": AccessDeniedError,
    "NSQuotaExceededException": QuotaExceededError,
    "DSQuotaExceededException": QuotaExceededError,
    "QuotaByStorageTypeExceededException": QuotaExceededError,
    "QuotaExceededException": QuotaExceededError,
    "DiskOutOfSpaceException": StorageFullError,
    "NoEnoughReplicaException": StorageFullError,
}
KERBEROS_REMEDY: Final = "look at the principal with its keytab or ticket cache, the key server and the clock"


class NotBegunError(Exception):
    """The server refused for now, or was not reached at all: nothing has happened."""


class NotAuthenticatedError(Exception):
    """There is no ticket to show, or the server wants none of it."""


class UnansweredError(Exception):
    """The connection was lost, or is in doubt: the call may have taken effect."""


def java_error(java_class: str, message: str, *, uri: str, path: str) -> Exception:
    """What one of Hadoop's exceptions means, as the interface has it, or NotBegunError or UnansweredError."""
    name = java_class.rpartition(".")[2].rpartition("$")[2]
    what = message.partition("\n")[0].strip() or name
    if _NO_DATANODE in what:
        # It says so of a new block, too, which needs as much room as a whole one.
        what = f"{what} (no DataNode runs, or none has room for a block)"
    if name in _NOT_BEGUN or any(words in what for words in _NO_PLACE_YET):
        return NotBegunError(what)
    if name in _UNANSWERED:
        return UnansweredError(f"{name}: {what}")
    # A path that leads through a file, and a file where a directory is meant (and the reverse), in Hadoop's words.
    if what.endswith("(is not a directory)"):
        return NotADirectoryError(errno.ENOTDIR, what, f"{uri}/{path}")
    if what.startswith("Path is not a file"):
        return IsADirectoryError(errno.EISDIR, what, f"{uri}/{path}")
    if what.endswith("must both be directories"):
        return FileExistsError(errno.EEXIST, what, f"{uri}/{path}")
    if "could only be written to" in what:
        if "There are 0 datanode(s) running" in what:
            return UnavailableError(what, uri=uri, path=path, remedy="start the DataNodes, then run again")
        return StorageFullError(what, uri=uri, path=path)
    if name in _OF_PYTHON:
        kind, number = _OF_PYTHON[name]
        return kind(number, what, f"{uri}/{path}")
    if name in _OF_OURS:
        return _OF_OURS[name](what, uri=uri, path=path)
    return FileSystemError(f"{name}: {what}", uri=uri, path=path)


def missing_directories(filesystem: FileSystem, path: str) -> list[str]:
    """`path` and those of its parents that are not there, parents first; FileExistsError if a file is in the way."""
    missing: list[str] = []
    while (status := filesystem.status(path)) is None:
        missing.append(path)
        if not path:
            break
        path = parent_of(path)
    if status is not None and not status.is_directory:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{filesystem.uri}/{path}")
    return missing[::-1]


class RemoteCalls:
    """Makes the calls of one remote file system, each within the deadline. Safe for any number of threads.

    `translate` makes of a client's exception what it means: an error of the interface, NotBegunError, UnansweredError.
    `drop` is called when a call was not answered: whatever connection it went over is not to be used again. `look` says
    in some words why there may have been no answer; it is called at a missed deadline, and has to be quick.
    """

    def __init__(
        self,
        uri: str,
        deadline_s: float,
        calls_max: int,
        translate: Callable[[BaseException, str], BaseException],
        drop: Callable[[], None],
        look: Callable[[], str] = str,
    ) -> None:
        self._uri = uri
        self._deadlines = Deadlines(uri, deadline_s, calls_max)
        self._translate = translate
        self._drop = drop
        self._look = look

    def read(self, path: str, function: Callable[[], T]) -> T:
        """Call until there is an answer; UnavailableError at the deadline."""
        return self._call(path, function, None, UnavailableError)

    def act(self, path: str, function: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
        """As `read`, for what changes something: UnknownOutcomeError if it may have taken effect unheard."""
        return self._call(path, function, discard, UnknownOutcomeError)

    def act_once(self, path: str, function: Callable[[], T], deadline_s: float | None = None) -> T:
        """An act that must not be sent twice."""
        try:
            return self._deadlines.act(path, function, deadline_s=deadline_s)
        except (UnavailableError, UnknownOutcomeError) as error:
            self._drop()
            self._raise_looked_into(error)
        except BaseException as error:
            problem = self._translate(error, path)
            if isinstance(problem, NotBegunError):
                raise UnavailableError(str(problem), uri=self._uri, path=path) from error
            if isinstance(problem, UnansweredError):
                raise UnknownOutcomeError(str(problem), uri=self._uri, path=path) from error
            if problem is error:
                raise
            raise problem from error

    def _call(
        self,
        path: str,
        function: Callable[[], T],
        discard: Callable[[T], object] | None,
        missed: type[FileSystemError],
    ) -> T:
        deadline_s = self._deadlines.deadline_s
        ends = time.monotonic() + deadline_s
        pause_s = _PAUSE_MIN_S
        run = self._deadlines.read if missed is UnavailableError else self._deadlines.act
        unanswered: UnansweredError | None = None
        while True:
            try:
                return run(path, function, discard, max(0.0, ends - time.monotonic()))
            except (UnavailableError, UnknownOutcomeError) as error:
                self._drop()
                if unanswered is not None:
                    raise missed(str(unanswered), uri=self._uri, path=path) from error
                self._raise_looked_into(error)
            except BaseException as error:
                problem = self._translate(error, path)
                if isinstance(problem, UnansweredError):
                    unanswered = problem
                    self._drop()
                elif not isinstance(problem, NotBegunError):
                    if unanswered is not None and missed is UnknownOutcomeError:
                        self._raise_unknown(unanswered, problem, path)
                    if problem is error:
                        raise
                    raise problem from error
                if time.monotonic() + pause_s >= ends:
                    kind = UnavailableError if unanswered is None else missed
                    what = f"{unanswered or problem}, for {deadline_s:g} s"
                    raise kind(what, uri=self._uri, path=path) from error
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _raise_unknown(self, unanswered: UnansweredError, problem: BaseException, path: str) -> None:
        """Raise what an act comes to whose first try was not answered, and whose next one was refused.

        Whatever the reason, be it a quota or a ticket that has run out in between, the first try may have taken effect.
        """
        if isinstance(problem, FileSystemError):
            what, remedy = problem.what, problem.remedy
        elif isinstance(problem, OSError):
            what, remedy = problem.strerror or str(problem), ""
        else:
            return  # none of a file system's answers
        raise UnknownOutcomeError(
            f"{unanswered}, and the next try says: {what}", uri=self._uri, path=path, remedy=remedy
        ) from problem

    def _raise_looked_into(self, error: FileSystemError) -> NoReturn:
        """Raise the same error, with what can be seen from here."""
        if not (seen := self._look()):
            raise error
        raise type(error)(f"{error.what} ({seen})", uri=error.uri, path=error.path) from error

    def close(self) -> None:
        """End the threads that wait."""
        self._deadlines.close()
