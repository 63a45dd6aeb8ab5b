"""The writes of one pass of the event loop: every partition that accepted batches, written once.

A chunk of a socket may hold hundreds of one-record requests. Each is validated and gets its offsets; then `submit`
makes one write per touched log of all of them, and the acknowledgements leave together.

Where a disk is slow, or batches have to be opened, what was accepted stands in memory meanwhile. That is bounded for
the whole broker: past the bound no connection's produce request is taken until some of it is written. Owned by the
event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from millstream.core.broker.partition import Partition

T = TypeVar("T")


class Appends:
    """Partitions that hold accepted, unwritten batches, and the threads that open compressed ones."""

    __slots__ = (
        "_executor",
        "_loop",
        "_room_waiters",
        "_unwritten",
        "size_bytes_max",
        "touched",
        "unflushed",
        "unwritten_bytes",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: Executor, size_bytes_max: int) -> None:
        self._loop = loop
        self._executor = executor
        # Accepted bytes that wait for a disk's thread or to be opened; how many there may be before produce requests
        # wait unread: half of what frames may hold, so that a slow disk leaves room to receive. What one pass accepts
        # comes on top.
        self.unwritten_bytes = 0
        self.size_bytes_max = size_bytes_max
        # Of them, those that wait for a disk's thread, by partition.
        self._unwritten: dict[Partition, int] = {}
        self._room_waiters: dict[Callable[[], None], None] = {}
        # Partitions to be written by the next `submit`, in the order they were first touched.
        self.touched: dict[Partition, None] = {}
        # Partitions whose topic has flush.ms and which were written: `LogTasks` flushes them in time, and takes them
        # out when they are.
        self.unflushed: set[Partition] = set()

    def submit(self) -> None:
        """Write all touched partitions: inline where their disk is fast, else on its thread; both end in
        handle_written.
        """
        while self.touched:
            partition, _ = self.touched.popitem()
            log = partition.log
            if log is not None and not log.directory.submit(log, partition.handle_written):
                self._note_unwritten(partition, log.unwritten_bytes)

    def handle_written(self, partition: Partition, unwritten_bytes: int) -> None:
        """A write of the partition has ended; this much of what it accepted still waits."""
        if partition in self._unwritten:
            self._note_unwritten(partition, unwritten_bytes)

    def hold(self, size_bytes: int) -> None:
        """Count bytes that wait to be opened; less than none where they have been."""
        self.unwritten_bytes += size_bytes
        assert self.unwritten_bytes >= 0, f"{-size_bytes} bytes more were written than accepted"
        if self._room_waiters and self.has_room:
            waiters, self._room_waiters = self._room_waiters, {}
            for waiter in waiters:
                waiter()

    @property
    def has_room(self) -> bool:
        """Whether more may be accepted."""
        return self.unwritten_bytes <= self.size_bytes_max

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when more may be accepted."""
        self._room_waiters[callback] = None

    def forget_waiter(self, callback: Callable[[], None]) -> None:
        """It need not be called any more."""
        self._room_waiters.pop(callback, None)

    def _note_unwritten(self, partition: Partition, size_bytes: int) -> None:
        before = self._unwritten.pop(partition, 0)
        if size_bytes:
            self._unwritten[partition] = size_bytes
        self.hold(size_bytes - before)

    def run_on_thread(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Run `work` on a worker thread and call `done(result, error)` on the loop."""

        def finished(future: Future[T]) -> None:
            self._loop.call_soon_threadsafe(report, future)

        def report(future: Future[T]) -> None:
            error = future.exception()
            if error is not None:
                done(None, error)
            else:
                done(future.result(), None)

        self._executor.submit(work).add_done_callback(finished)
