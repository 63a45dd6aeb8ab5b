"""The writes of one pass of the event loop: every partition that accepted batches, written once.

A chunk of a socket may hold hundreds of one-record requests. Each is validated and gets its offsets; then `submit`
makes one write per touched log of all of them, and the acknowledgements leave together. Owned by the event loop.
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

    __slots__ = ("_executor", "_loop", "touched")

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._loop = loop
        self._executor = executor
        # Partitions to be written by the next `submit`, in the order they were first touched.
        self.touched: dict[Partition, None] = {}

    def submit(self) -> None:
        """Write all touched partitions: inline where their disk is fast, else on its thread; both end in
        handle_written.
        """
        while self.touched:
            partition, _ = self.touched.popitem()
            log = partition.log
            if log is not None:
                log.directory.submit(log, partition.handle_written)

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
