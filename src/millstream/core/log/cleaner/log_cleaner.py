"""The cleaner of a broker's compacted logs: its threads, what they are told, and what they found.

Each thread takes the log with the largest share of dirty bytes that is due (`plan`), cleans it (`cleaning`), writes
the `cleaner-offset-checkpoint`, and looks again; with nothing to do it waits `log.cleaner.backoff.ms`. A log is one
thread's at a time.

**What ends a cleaning early.** A log that is deleted, moved, truncated, or no longer compacted is given up: whoever
does that need not wait, since nothing is swapped once the log has changed. A full disk: the copy goes, and it is tried
again after the backoff. A batch that cannot be read makes the partition **uncleanable** until the next start: nothing
more of it is touched, the broker's log and a metric say so, and the file `uncleanable-partitions` in the log directory
tells `millstream doctor`. Any other failure of ours does the same, since it would come back.

Threads own their tools. `_lock` guards what they share; the event loop only reads figures.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.log.cleaner.cleaning import CleaningStats, LogCleaning, Tools
from millstream.core.log.cleaner.errors import CleaningAbortedError, UncleanableError
from millstream.core.log.cleaner.plan import LogToClean, examine, uncleaned_bytes
from millstream.core.log.errors import LogDirectoryError
from millstream.core.log.throttle import Throttle
from millstream.core.log.topic_partition import TopicPartition

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.log import Log
    from millstream.core.log.manager import LogManager

UNCLEANABLE: Final = "uncleanable-partitions"
# By how much a cleaner thread is nicer than the process: a quarter of a processor where another wants all of it. Much
# nicer, and a thread that is put aside while it holds the interpreter would keep the loop waiting in turn.
NICER_BY: Final = 5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanerConfig:
    """The configs log.cleaner.*, with Kafka's defaults."""

    threads: int = 1
    dedupe_buffer_bytes: int = 128 << 20  # of all threads together
    load_factor: float = 0.9
    io_buffer_bytes: int = 512 << 10  # of all threads together
    io_bytes_per_second_max: float = float("inf")
    backoff_ms: int = 15_000


class Uncleanable(NamedTuple):
    """Why a partition is left alone."""

    topic_partition: TopicPartition
    offset: int
    reason: str


@dataclass(slots=True)
class CleanerStats:
    """What the metrics tell. Counts only grow; the rest is of the last cleaning, or the last look at all logs."""

    cleanings: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    records_dropped: int = 0
    dirtiest_ratio: float = 0.0
    compaction_delay_ms: int = 0
    map_utilization: float = 0.0
    recopy_ratio: float = 0.0
    duration_s: float = 0.0
    last_look_ms: int = 0


class LogCleaner:
    """Cleans the compacted logs of a LogManager.

    States: STOPPED -> RUNNING (start) -> STOPPED (stop: a cleaning in progress is given up at its next read or write).
    """

    def __init__(
        self,
        manager: LogManager,
        config: CleanerConfig,
        *,
        last_stable_offset: Callable[[Log], int],
        now_ms: Callable[[], int],
        secret: bytes,
    ) -> None:
        """`last_stable_offset` tells how far a log may be cleaned at most; `secret` is 16 bytes nobody knows."""
        self._manager = manager
        self._config = config
        self._last_stable_offset = last_stable_offset
        self._now_ms = now_ms
        self._secret = secret
        self._stopping = threading.Event()
        self._throttle = Throttle(time.monotonic, self._stopping.wait)
        self._throttle.set_rate(config.io_bytes_per_second_max)
        self._lock = threading.Lock()
        self._threads: dict[int, threading.Thread] = {}
        # Logs that a thread is at work on.
        self._cleaning: set[Log] = set()
        self._uncleanable: dict[Log, Uncleanable] = {}
        self.stats = CleanerStats(last_look_ms=now_ms())

    # On the event loop, or any thread.

    def start(self) -> None:
        """Start the threads. What could not be cleaned before is tried again."""
        self._stopping.clear()
        for directory in self._manager.online_directories():
            path = f"{directory.path}/{UNCLEANABLE}"
            try:
                if directory.files.exists(path):
                    directory.files.unlink(path)
            except OSError as error:
                directory.failed(error, f"removing {path}")
        self.reconfigure(self._config)

    def reconfigure(self, config: CleanerConfig) -> None:
        """Go by another configuration; memory and threads change when each thread next looks for work."""
        self._config = config
        self._throttle.set_rate(config.io_bytes_per_second_max)
        with self._lock:
            for index in range(config.threads):
                if index not in self._threads and not self._stopping.is_set():
                    thread = threading.Thread(target=self._run, args=(index,), name=f"log-cleaner {index}", daemon=True)
                    self._threads[index] = thread
                    thread.start()

    def stop(self) -> None:
        """Give up what is in progress and end the threads. Blocks for about one read or write."""
        self._stopping.set()
        for thread in list(self._threads.values()):
            thread.join()
        self._threads.clear()

    @property
    def dead_thread_count(self) -> int:
        """Threads that should run and do not."""
        threads = list(self._threads.values())
        return 0 if self._stopping.is_set() else sum(not thread.is_alive() for thread in threads)

    @property
    def uncleanable(self) -> list[Uncleanable]:
        """The partitions that are left alone until somebody has looked."""
        return [each for log, each in list(self._uncleanable.items()) if log.retired is None]

    def uncleanable_in(self, directory: LogDirectory) -> tuple[int, int]:
        """Return how many of a directory's partitions are left alone, and the bytes in them not cleaned."""
        logs = [log for log in list(self._uncleanable) if log.directory is directory and log.retired is None]
        return len(logs), sum(uncleaned_bytes(log) for log in logs)

    # On a cleaner thread (or a test's own).

    def clean_next(self, tools: Tools) -> bool:
        """Clean the log that needs it most; False where none is due."""
        found = self._take()
        if found is None:
            return False
        try:
            self._clean(found, tools)
        finally:
            with self._lock:
                self._cleaning.discard(found.log)
            tools.shrink()
        return True

    def make_tools(self) -> Tools:
        """Return one thread's memory."""
        config = self._config
        return Tools(
            map_bytes=config.dedupe_buffer_bytes // config.threads,
            load_factor=config.load_factor,
            io_buffer_bytes=config.io_buffer_bytes // config.threads,
            secret=self._secret,
        )

    def _run(self, index: int) -> None:
        _give_way()
        config, tools = self._config, None
        while not self._stopping.is_set() and index < self._config.threads:
            if tools is None or config is not self._config:
                config, tools = self._config, self.make_tools()
            try:
                worked = self.clean_next(tools)
            except Exception:
                _logger.exception("the log cleaner failed; it goes on after log.cleaner.backoff.ms")
                worked = False
            if not worked:
                self._stopping.wait(config.backoff_ms / 1000)
        with self._lock:
            if not self._stopping.is_set():
                self._threads.pop(index, None)

    def _take(self) -> LogToClean | None:
        now_ms = self._now_ms()
        found: list[LogToClean] = []
        for log in list(self._manager.logs.values()):
            if not log.config.compacted or log.retired is not None or log.directory.offline_reason is not None:
                continue
            if log.is_moving or log in self._uncleanable or log in self._cleaning:
                continue
            try:
                found.append(examine(log, self._last_stable_offset(log), now_ms))
            except OSError as error:
                self._failed(log, error, "looking at")
        stats = self.stats
        stats.last_look_ms = now_ms
        stats.dirtiest_ratio = max((each.cleanable_ratio for each in found), default=0.0)
        stats.compaction_delay_ms = max((each.compaction_delay_ms for each in found), default=0)
        due = sorted((each for each in found if each.is_due), key=lambda each: each.cleanable_ratio, reverse=True)
        with self._lock:
            for each in due:
                if each.log not in self._cleaning:
                    self._cleaning.add(each.log)
                    return each
        return None

    def _clean(self, found: LogToClean, tools: Tools) -> None:
        log = found.log
        started_s = time.monotonic()

        def on_io(size_bytes: int) -> None:
            if self._stopping.is_set():
                raise CleaningAbortedError("the cleaner stops")
            if log.retired is not None or log.is_moving or not log.config.compacted:
                raise CleaningAbortedError(f"{log.path} is deleted, moves, or is no longer compacted")
            self._throttle.take(size_bytes)

        cleaning = LogCleaning(log, tools, now_ms=self._now_ms(), on_io=on_io, on_deleted=self._manager.doom)
        try:
            end_offset = cleaning.clean(found)
        except CleaningAbortedError as error:
            _logger.info("cleaning of %s was given up: %s", log.topic_partition, error)
            self._pause()
        except UncleanableError as error:
            self._leave_alone(log, error.offset, str(error))
        except LogDirectoryError as error:
            _logger.warning("cleaning of %s was given up: %s", log.topic_partition, error)
            self._pause()
        except OSError as error:
            self._failed(log, error, "cleaning")
            self._pause()
        except Exception as error:
            _logger.exception("cleaning of %s failed unexpectedly", log.topic_partition)
            self._leave_alone(log, found.first_dirty_offset, f"the cleaner failed: {error!r}")
        else:
            with log.lock:
                log.first_dirty_offset = min(end_offset, log.log_end_offset)
            self._manager.checkpoint_cleaner()
            self._note(log, cleaning.stats, time.monotonic() - started_s)

    def _pause(self) -> None:
        # What made it end may be there again at once: a log that cannot be cleaned must not keep a thread busy.
        self._stopping.wait(self._config.backoff_ms / 1000)

    @staticmethod
    def _failed(log: Log, error: OSError, doing: str) -> None:
        failure = log.failed(error, f"{doing} {log.path}")
        _logger.warning("cleaning of %s was given up: %s", log.topic_partition, failure)

    def _leave_alone(self, log: Log, offset: int, why: str) -> None:
        found = Uncleanable(log.topic_partition, offset, why)
        with self._lock:
            for gone in [each for each in self._uncleanable if each.retired is not None]:
                del self._uncleanable[gone]
            self._uncleanable[log] = found
            of_directory = [each for each_log, each in self._uncleanable.items() if each_log.directory is log.directory]
        _logger.error(
            "partition %s cannot be cleaned and is left alone until a person has looked and the broker is restarted: "
            "%s",
            log.topic_partition, why,
        )  # fmt: skip
        try:
            log.cache.files.write_atomically(f"{log.directory.path}/{UNCLEANABLE}", encode_uncleanable(of_directory))
        except OSError as error:
            log.directory.failed(error, f"writing {log.directory.path}/{UNCLEANABLE}")

    def _note(self, log: Log, done: CleaningStats, duration_s: float) -> None:
        stats = self.stats
        with self._lock:
            stats.cleanings += 1
            stats.bytes_read += done.bytes_noted + done.bytes_read
            stats.bytes_written += done.bytes_written
            stats.records_dropped += done.records_dropped
            stats.map_utilization = done.map_utilization
            stats.recopy_ratio = done.bytes_written / done.bytes_read if done.bytes_read else 0.0
            stats.duration_s = duration_s
        _logger.info(
            "cleaned %s up to offset %d in %.2f s: %d bytes became %d, %d records stayed, %d went%s; %.0f %% of the "
            "map was used",
            log.topic_partition, done.end_offset, duration_s, done.size_before, done.size_after,
            done.records_retained, done.records_dropped,
            f" ({done.records_keyless} for want of a key)" if done.records_keyless else "", 100 * done.map_utilization,
        )  # fmt: skip


def _give_way() -> None:
    """Let the loop, and who waits for its answers, go first where processors are few: cleaning has time.

    Linux alone knows niceness by thread.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a service manager may forbid it
            os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + NICER_BY, 19))


def encode_uncleanable(found: list[Uncleanable]) -> bytes:
    """Return the file `uncleanable-partitions`: a JSON object a line."""
    lines = [
        json.dumps({"topic": each.topic_partition.topic, "partition": each.topic_partition.partition,
                    "offset": each.offset, "reason": each.reason})
        for each in found
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in lines).encode()


def decode_uncleanable(data: bytes) -> list[Uncleanable]:
    """Return what the file holds. Raises ValueError."""
    found = []
    for line in data.decode().splitlines():
        fields = json.loads(line)
        topic_partition = TopicPartition(str(fields["topic"]), int(fields["partition"]))
        found.append(Uncleanable(topic_partition, int(fields["offset"]), str(fields["reason"])))
    return found
