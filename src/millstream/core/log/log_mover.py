"""Moving logs between the directories of a broker: who is on the way, by how many threads, and how fast.

`replica.alter.log.dirs.io.max.bytes.per.second` bounds what all threads copy together,
`num.replica.alter.log.dirs.threads` is their number; a move waits for a thread that is free. A full disk makes a move
wait and try again; a directory that fails ends it, and its log stays where it was.

`futures` is read by the event loop, which also moves and cancels; the threads take from it what has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from millstream.core.log.errors import LogDirectoryError
from millstream.core.log.future_log import FutureLog, MoveEndedError
from millstream.core.log.throttle import Throttle

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.log import Log
    from millstream.core.log.manager import LogManager
    from millstream.core.log.topic_partition import TopicPartition

RETRY_S: Final = 5.0

_logger = logging.getLogger(__name__)


class LogMover:
    """Moves logs of a LogManager.

    States: STOPPED -> RUNNING (start: moves that a stop cut short go on) -> STOPPED (stop: copies stay for the next).
    """

    def __init__(self, manager: LogManager, *, thread_count: int, bytes_per_second: float = float("inf")) -> None:
        self._manager = manager
        self._thread_count = thread_count
        self._stopping = threading.Event()
        self._throttle = Throttle(time.monotonic, self._stopping.wait)
        self._throttle.set_rate(bytes_per_second)
        self._lock = threading.Lock()
        self._queue: SimpleQueue[FutureLog | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # The copies on their way, by partition.
        self.futures: dict[TopicPartition, FutureLog] = {}

    # On the event loop.

    def set_rate(self, bytes_per_second: float) -> None:
        """Copy no more than this in a second, all moves together."""
        self._throttle.set_rate(bytes_per_second)

    def start(self) -> None:
        """Go on with the moves whose copies the manager has found."""
        self._stopping.clear()
        placement = self._manager.placement
        found, placement.futures = placement.futures, []
        for log, directory, path in found:
            self._begin(FutureLog(log, directory, path))

    def move(self, log: Log, directory: LogDirectory) -> None:
        """Move `log` to `directory`; one on its way elsewhere turns round, one that is there or goes there stays."""
        future = self.futures.get(log.topic_partition)
        if future is not None and future.log is log:
            if future.directory is directory:
                return
            self.cancel(future)
        if log.directory is not directory:
            self._begin(FutureLog(log, directory))

    def cancel(self, future: FutureLog) -> None:
        """Leave the log where it is; its thread drops the copy."""
        future.is_cancelled = True
        with self._lock:
            self._forget(future)

    def stop(self) -> None:
        """End the threads; what is copied stays. Blocks for about one piece."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self.futures.clear()

    def _begin(self, future: FutureLog) -> None:
        with self._lock:
            self.futures[future.log.topic_partition] = future
        future.log.is_moving = True
        self._queue.put(future)
        if len(self._threads) < min(self._thread_count, len(self.futures)):
            name = f"log-mover {len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    # On a thread.

    def _run(self) -> None:
        while (future := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                self._move(future)
            except Exception:
                _logger.exception("moving %s failed; it stays where it is", future.log.path)
                self._end(future, future.drop())
            finally:
                future.close()

    def _move(self, future: FutureLog) -> None:
        log = future.log
        started_s, source = time.monotonic(), log.path
        is_open = False
        while not self._stopping.is_set():
            try:
                if not is_open:
                    _logger.info("moving %s to %s", source, future.directory.path)
                    future.open()
                    is_open = True
                while future.copy_some(lambda size_bytes: self._throttle.take(size_bytes, is_over=future.is_over)):
                    if self._stopping.is_set():
                        return
                doomed = future.arrive(self._manager.arrival)
            except MoveEndedError as error:
                _logger.info("moving %s to %s ended: %s", source, future.directory.path, error)
                self._end(future, future.drop())
                return
            except LogDirectoryError as error:
                if not error.shortage:
                    _logger.warning("moving %s to %s ended: %s", source, future.directory.path, error)
                    self._end(future, future.drop())
                    return
                _logger.warning("moving %s to %s waits: %s", source, future.directory.path, error)
                self._stopping.wait(RETRY_S)
                continue
            if log.directory is future.directory:
                _logger.info(
                    "moved %s to %s: %d bytes in %.1f s", source, log.path, log.size_bytes, time.monotonic() - started_s
                )
                self._end(future, doomed)
                return

    def _end(self, future: FutureLog, doomed: str | None) -> None:
        with self._lock:
            self._forget(future)
        if doomed is not None:
            self._manager.doom_folder(doomed, future.log.config.file_delete_delay_ms)

    def _forget(self, future: FutureLog) -> None:
        topic_partition = future.log.topic_partition
        if self.futures.get(topic_partition) is future:
            del self.futures[topic_partition]
            future.log.is_moving = False
