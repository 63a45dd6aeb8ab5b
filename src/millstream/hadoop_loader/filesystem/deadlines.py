"""Deadlines for calls that block: a thread makes the call, its caller waits no longer than the deadline.

A call that does not return (a hung mount, a server that takes 188 s to fail) cannot be ended from outside. Its thread
is left to it, and what it returns in the end is given to `discard`, so that nothing it opened leaks. How many calls are
in progress, left ones included, is bounded: when all are taken, a call waits for one to end, within its deadline, and
if none does it is known never to have begun.

Threads are daemons, made when needed and kept for the next call: a call costs two switches of threads, some 30 us. They
do not live on in a forked process, which opens the file system again by its address and settings.
"""

from __future__ import annotations

import os
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from millstream.hadoop_loader.filesystem.errors import FileSystemError, UnavailableError, UnknownOutcomeError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_NO_THREAD_REMEDY: Final = (
    "raise what this process, its user or its container may have of threads (ulimit -u, pids.max)"
)


class _Call(Generic[T]):
    """One call: PENDING -> DONE (the worker, `done` is released) | LEFT (the caller, at its deadline), never both."""

    __slots__ = ("discard", "done", "error", "function", "left", "result")

    def __init__(self, function: Callable[[], T], discard: Callable[[T], object] | None) -> None:
        self.function = function
        self.discard = discard
        self.result: T | None = None
        self.error: BaseException | None = None
        self.left = False
        self.done = threading.Lock()
        self.done.acquire()


class Deadlines:
    """Runs the calls of one file system; `uri` is for its messages. Safe for any number of threads."""

    def __init__(self, uri: str, deadline_s: float, calls_max: int) -> None:
        self._uri = uri
        self.deadline_s: Final = deadline_s
        self._calls_max = calls_max
        # Its holder may take it again: what closes a file system may be the collector of garbage, at any line.
        self._lock = threading.RLock()
        # Calls that may still begin. Invariant: calls_max = this + calls in progress, left ones included.
        self._room = threading.BoundedSemaphore(calls_max)
        # Inboxes of the threads that wait for a call; the one that waited least is taken first.
        self._idle: list[SimpleQueue[_Call[object] | None]] = []
        self._closed = False
        self._process = os.getpid()

    def read(
        self,
        path: str,
        function: Callable[[], T],
        discard: Callable[[T], object] | None = None,
        deadline_s: float | None = None,
    ) -> T:
        """What `function` returns or raises; UnavailableError when `deadline_s` (by default that of all) passes."""
        return self._run(path, function, discard, UnavailableError, deadline_s)

    def act(
        self,
        path: str,
        function: Callable[[], T],
        discard: Callable[[T], object] | None = None,
        deadline_s: float | None = None,
    ) -> T:
        """As `read`, for what changes something: UnknownOutcomeError when its deadline passes."""
        return self._run(path, function, discard, UnknownOutcomeError, deadline_s)

    def _run(
        self,
        path: str,
        function: Callable[[], T],
        discard: Callable[[T], object] | None,
        missed: type[FileSystemError],
        deadline_s: float | None,
    ) -> T:
        process = os.getpid()
        assert process == self._process, (
            f"{self._uri} was opened by process {self._process}: {process} has no such threads"
        )
        ends = time.monotonic() + (self.deadline_s if deadline_s is None else deadline_s)
        if not self._room.acquire(timeout=max(0.0, ends - time.monotonic())):
            raise UnavailableError(
                f"{self._calls_max} earlier calls have not ended, and none did in {self.deadline_s:g} s",
                uri=self._uri,
                path=path,
            )
        call = _Call(function, discard)
        try:
            self._give(call)
        except RuntimeError as error:
            self._room.release()
            raise UnavailableError(str(error), uri=self._uri, path=path, remedy=_NO_THREAD_REMEDY) from error
        if not call.done.acquire(timeout=max(0.0, ends - time.monotonic())):
            with self._lock:
                # It may have ended between the two lines; then its answer counts.
                call.left = call.done.locked()
            if call.left:
                raise missed(f"no answer within {self.deadline_s:g} s", uri=self._uri, path=path)
        if call.error is not None:
            try:
                raise call.error
            finally:
                del call  # else the error's traceback and this frame keep each other alive
        result: T = call.result  # type: ignore[assignment]
        return result

    def _give(self, call: _Call[T]) -> None:
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(target=self._work, args=(inbox,), name=f"calls of {self._uri}", daemon=True).start()
        inbox.put(call)  # type: ignore[arg-type]

    def _work(self, inbox: SimpleQueue[_Call[object] | None]) -> None:
        while (call := inbox.get()) is not None:
            try:
                call.result = call.function()
            except BaseException as error:  # noqa: BLE001  # raised where the call was made
                call.error = error
            with self._lock:
                closed = self._closed
                if not closed:
                    self._idle.append(inbox)
                left = call.left
                if not left:
                    call.done.release()
            self._room.release()
            if left and call.error is None and call.discard is not None:
                call.discard(call.result)
            del call
            if closed:
                return

    def close(self) -> None:
        """End the threads that wait; one whose call was left ends with that call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)
