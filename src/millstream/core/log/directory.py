"""One log directory (a disk): its lock, its identity, its writer thread, and whether it still works.

    .lock               locked (lockf, as Kafka's FileChannel lock) while a broker uses the directory
    meta.properties     version=1, cluster.id, node.id, directory.id: refuses to be started by another cluster or node
    *-checkpoint        the offset checkpoints of all partitions in it (`checkpoints`)
    .kafka_cleanshutdown    written last on a clean stop, removed first on a start
    <topic>-<partition>/    the logs

**Writing.** `submit` writes inline on the event loop where that is one append to an open file and the disk has been
fast of late (the mean of recent writes is below INLINE_LATENCY_US), else on the directory's writer thread, in order;
submits of a log whose write has not begun there share that write.
`submit_flush` syncs on the flusher thread; requests that wait for the same log share one sync (group commit).

States: ONLINE -> OFFLINE (an I/O error; for good, until a restart). `read_only_reason` is the free-disk watermark's
and comes and goes. Owned by the event loop, but for `failed`, which any thread may call.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

from millstream.core.log.errors import (
    SHORTAGE_ERRNOS,
    InconsistentDirectoryError,
    LogDirectoryError,
    LogLockedError,
)
from millstream.core.log.files import FileSystem
from millstream.core.log.offset_checkpoints import OffsetCheckpoints
from millstream.core.wire import uuid_from_text, uuid_text

if TYPE_CHECKING:
    from millstream.core.log.log import Log
    from millstream.core.log.topic_partition import TopicPartition

LOCK: Final = ".lock"
META_PROPERTIES: Final = "meta.properties"
INLINE_LATENCY_US: Final = 1000

OnOffset: TypeAlias = Callable[[int | None, LogDirectoryError | None], object]

_logger = logging.getLogger(__name__)


class _QueuedWrite:
    """A write for the writer thread: of everything that the log has reserved, in this generation, when it begins."""

    __slots__ = ("callbacks", "generation", "log")

    def __init__(self, log: Log, generation: int, on_written: OnOffset) -> None:
        self.log = log
        self.generation = generation
        # Of all submits that it answers. No more are added once it has begun.
        self.callbacks = [on_written]


class LogDirectory:
    """One log directory; see the module's text."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        files: FileSystem | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        on_offline: Callable[[LogDirectory], object] | None = None,
    ) -> None:
        """Name the directory; `open` locks it. `on_offline` is called once, on the loop where there is one."""
        self.path = str(Path(path).absolute())
        self.files = files or FileSystem()
        self.loop = loop
        self.on_offline = on_offline
        # Identity from meta.properties; 16 bytes.
        self.directory_id = b""
        # Why the directory is out of service; set once, by whoever meets the error first.
        self.offline_reason: str | None = None
        # Why appends are refused for now (the free-disk watermark).
        self.read_only_reason: str | None = None
        # Whether the last stop was clean, the broker epoch it noted, and the checkpointed high watermarks: set by
        # loading.
        self.was_clean = False
        self.broker_epoch = -1
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.checkpoints = OffsetCheckpoints(self.files, self.path)
        # Mean duration of recent writes; above INLINE_LATENCY_US they go to the writer thread until they are fast
        # again.
        self.write_latency_us = 0.0
        self._lock_fd = -1
        self._state_lock = threading.Lock()
        # Logs with a write on the writer thread, and how many; further writes queue behind it.
        self._writing: dict[Log, int] = {}
        # Of each such log the last write, where it has not begun: what is submitted meanwhile goes with it. Guarded by
        # _state_lock.
        self._queued_writes: dict[Log, _QueuedWrite] = {}
        self._writer = _Worker(f"log-writer {self.path}")
        self._flusher = _Worker(f"log-flusher {self.path}")
        # Who waits for a sync of a log that has not begun yet.
        self._flush_waiters: dict[Log, list[OnOffset]] = {}

    def __repr__(self) -> str:
        return f"<LogDirectory {self.path} {'offline' if self.offline_reason else 'online'}>"

    def open(self, cluster_id: str, node_id: int) -> None:
        """Make the directory where it is missing, lock it, and check or write its identity. Blocks.

        Raises LogLockedError, InconsistentDirectoryError, or LogDirectoryError where the disk fails.
        """
        try:
            self.files.make_directory(self.path)
            self._lock_fd = self.files.open(f"{self.path}/{LOCK}", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise self.failed(error, f"opening {self.path}", always_offline=True) from error
        try:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.files.close(self._lock_fd)
            self._lock_fd = -1
            raise LogLockedError(
                f"{self.path} is in use by another process; stop it, or name another directory"
            ) from error
        try:
            self._check_identity(cluster_id, node_id)
        except OSError as error:
            self.close()
            raise self.failed(error, f"reading {self.path}/{META_PROPERTIES}", always_offline=True) from error
        except InconsistentDirectoryError:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether the directory is locked by us."""
        return self._lock_fd >= 0

    def finish(self) -> None:
        """Finish what is queued and stop the threads. Blocks."""
        self._writer.stop()
        self._flusher.stop()

    def close(self) -> None:
        """Finish what is queued, stop the threads, and unlock. Blocks."""
        self.finish()
        if self._lock_fd >= 0:
            with suppress(OSError):  # closing unlocks in any case
                self.files.close(self._lock_fd)
            self._lock_fd = -1

    def submit(self, log: Log, on_written: OnOffset) -> bool:
        """Write what `log` has reserved; call on_written(log_end_offset, None) or on_written(None, error).

        Inline and before this returns (True), or on the writer thread (False; the call comes on the loop later). After
        an error the reservations made before this call are gone and none of their batches will be acknowledged.
        """
        if log not in self._writing and self.write_latency_us < INLINE_LATENCY_US and log.can_write_inline:
            started = time.perf_counter_ns()
            try:
                offset = log.write()
            except LogDirectoryError as error:
                on_written(None, error)
                return True
            self._note_latency(time.perf_counter_ns() - started)
            on_written(offset, None)
            return True
        generation = log.generation
        with self._state_lock:
            queued = self._queued_writes.get(log)
            if queued is not None and queued.generation == generation:
                queued.callbacks.append(on_written)
                return False
            write = self._queued_writes[log] = _QueuedWrite(log, generation, on_written)
        self._writing[log] = self._writing.get(log, 0) + 1
        self._writer.put(lambda: self._write_on_thread(write))
        return False

    def submit_flush(self, log: Log, on_flushed: OnOffset) -> None:
        """Sync `log` on the flusher thread; on the loop call on_flushed(flushed_offset | None, error | None).

        What was written before this call is covered.
        """
        with self._state_lock:
            waiters = self._flush_waiters.get(log)
            if waiters is not None:
                waiters.append(on_flushed)
                return
            self._flush_waiters[log] = [on_flushed]
        self._flusher.put(lambda: self._flush_on_thread(log))

    def run(self, work: Callable[[], object]) -> None:
        """Run blocking maintenance work on the flusher thread, behind what is queued there. `work` raises nothing."""
        self._flusher.put(work)

    def failed(self, error: OSError, doing: str, *, always_offline: bool = False) -> LogDirectoryError:
        """Report a failed operation; take the directory offline unless it only ran out of space or descriptors.

        Returns what to raise. Callable from any thread.
        """
        message = f"{doing} failed: {error.strerror or error} ({type(error).__name__} {error.errno})"
        if error.errno in SHORTAGE_ERRNOS and not always_offline:
            _logger.error("%s; the operation was taken back, log directory %s stays online", message, self.path)
            return LogDirectoryError(message, shortage=True)
        self.take_offline(message)
        return LogDirectoryError(message)

    def take_offline(self, reason: str) -> None:
        """Put the directory out of service. Callable from any thread; the first reason stays."""
        with self._state_lock:
            if self.offline_reason is not None:
                return
            self.offline_reason = reason
        _logger.critical("log directory %s goes offline: %s", self.path, reason)
        if self.on_offline is not None:
            self._call(self.on_offline, self)

    def offline_error(self) -> LogDirectoryError:
        """Return what to raise for an operation on an offline directory."""
        return LogDirectoryError(f"log directory {self.path} is offline: {self.offline_reason}")

    def _broke(self, error: Exception, doing: str) -> LogDirectoryError:
        # A mistake of ours, not the disk's. What the log says of itself may be wrong now, so nothing is added to it,
        # and whoever waits is told.
        _logger.error("%s: unexpected failure", doing, exc_info=error)
        self.take_offline(f"{doing} failed unexpectedly: {error!r}")
        return self.offline_error()

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        if self.loop is None:
            function(*arguments)
            return
        with suppress(RuntimeError):  # the loop has closed: nobody is left to tell
            self.loop.call_soon_threadsafe(function, *arguments)

    def _note_latency(self, duration_ns: int) -> None:
        self.write_latency_us += (duration_ns / 1000 - self.write_latency_us) / 8

    def _write_on_thread(self, write: _QueuedWrite) -> None:
        log = write.log
        with self._state_lock:
            # What is submitted from here on may miss this write, and queues another.
            if self._queued_writes.get(log) is write:
                del self._queued_writes[log]
        started = time.perf_counter_ns()
        offset: int | None = None
        failure: LogDirectoryError | None = None
        try:
            offset = log.write_reserved(write.generation)
        except LogDirectoryError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  whatever it is, who waits must be told
            failure = log.failure = self._broke(error, f"writing {log.path}")
        self._call(self._written, write, time.perf_counter_ns() - started, offset, failure)

    def _written(
        self, write: _QueuedWrite, duration_ns: int, offset: int | None, failure: LogDirectoryError | None
    ) -> None:
        log = write.log
        count = self._writing.pop(log, 1)
        if count > 1:
            self._writing[log] = count - 1
        self._note_latency(duration_ns)
        if failure is not None and log.failure is failure:
            log.forget_reserved()
        for on_written in write.callbacks:
            on_written(offset, failure)

    def _flush_on_thread(self, log: Log) -> None:
        with self._state_lock:
            waiters = self._flush_waiters.pop(log)
        offset: int | None = None
        failure: LogDirectoryError | None = None
        try:
            offset = log.flush()
        except LogDirectoryError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  whatever it is, who waits must be told
            failure = self._broke(error, f"syncing {log.path}")
        for on_flushed in waiters:
            self._call(on_flushed, offset, failure)

    def _check_identity(self, cluster_id: str, node_id: int) -> None:
        path = f"{self.path}/{META_PROPERTIES}"
        if not self.files.exists(path):
            self.directory_id = _random_directory_id()
            self._write_identity(cluster_id, node_id)
            return
        values = _properties(self.files.read_bytes(path).decode("latin-1"))
        if values.get("version") != "1":
            raise InconsistentDirectoryError(
                f"{path}: version {values.get('version')!r} where 1 is expected; version 0 is of Apache Kafka with "
                "ZooKeeper, whose topics are not in the directory: migrate it to KRaft with Kafka 3.9 first, or name "
                "another directory"
            )
        for name, expected in (("cluster.id", cluster_id), ("node.id", str(node_id))):
            if values.get(name, expected) != expected:
                raise InconsistentDirectoryError(
                    f"{path}: {name} is {values[name]}, but this broker's is {expected}; "
                    "it belongs to another one: name another directory, or give this broker that identity"
                )
        try:
            self.directory_id = uuid_from_text(values["directory.id"]) if "directory.id" in values else b""
        except ValueError as error:
            raise InconsistentDirectoryError(f"{path}: directory.id {values['directory.id']!r} is no id") from error
        if not self.directory_id or "cluster.id" not in values or "node.id" not in values:
            self.directory_id = self.directory_id or _random_directory_id()
            self._write_identity(cluster_id, node_id)

    def _write_identity(self, cluster_id: str, node_id: int) -> None:
        text = (
            f"#\nnode.id={node_id}\ndirectory.id={uuid_text(self.directory_id)}\nversion=1\ncluster.id={cluster_id}\n"
        )
        self.files.write_atomically(f"{self.path}/{META_PROPERTIES}", text.encode("latin-1"))


def read_meta_properties(path: str, files: FileSystem | None = None) -> dict[str, str]:
    """Return what `meta.properties` of the log directory at `path` says, {} where there is none."""
    files = files or FileSystem()
    name = f"{path}/{META_PROPERTIES}"
    return _properties(files.read_bytes(name).decode("latin-1")) if files.exists(name) else {}


def _properties(text: str) -> dict[str, str]:
    values = {}
    for line in text.splitlines():
        name, found, value = line.strip().partition("=")
        if found and not name.startswith(("#", "!")):
            values[name.strip()] = value.strip().replace("\\:", ":").replace("\\=", "=")
    return values


def _random_directory_id() -> bytes:
    # Kafka reserves ids whose text begins with a dash, and the first hundred.
    while True:
        candidate = uuid.uuid4().bytes
        if not uuid_text(candidate).startswith("-"):
            return candidate


class _Worker:
    """One thread that runs what it is given, in order; started on first use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, work: Callable[[], object]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(work)

    def stop(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:  # the thread must live on for what is queued behind
                _logger.exception("%s: unexpected failure", self._name)
