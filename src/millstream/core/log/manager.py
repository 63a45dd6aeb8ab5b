"""All logs of a broker, over its log directories: loaded at the start, created, deleted, checkpointed, closed.

**Start.** For each directory: lock and identity, the clean-shutdown mark (read, then removed at once, so that a crash
while loading counts as unclean), the checkpoints, then every partition's folder, several at a time. A directory that
fails goes offline and its partitions with it; the others load on. Folders ending in `-delete` are unlinked in the
background, a second copy of a partition and a folder that no metadata knows become `-stray` and are kept.

**Stop.** Every log is closed (indexes, snapshot, sync), the checkpoints are written, and last the clean-shutdown mark.

`load`, `create_log`, `delete_log`, `checkpoint...`, `close` block and are meant for a thread; `logs` may be read by
the event loop at any time.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from millstream.core.log import checkpoints
from millstream.core.log.config import LogConfig
from millstream.core.log.directory import LogDirectory
from millstream.core.log.errors import CorruptCheckpointError, LogDirectoryError
from millstream.core.log.files import FileSystem
from millstream.core.log.leader_epochs import LeaderEpochs
from millstream.core.log.loader import LogLoader
from millstream.core.log.log import Log
from millstream.core.log.open_segments import SEGMENTS_MAX, OpenSegments
from millstream.core.log.producer_state import EXPIRATION_MS, PRODUCER_COUNT_MAX, ProducerState
from millstream.core.log.retention import DeletedSegment
from millstream.core.log.segment import Segment
from millstream.core.log.segments import Segments
from millstream.core.log.topic_partition import DELETE_SUFFIX, FUTURE_SUFFIX, STRAY_SUFFIX, TopicPartition
from millstream.core.wire import ErrorCode, KafkaError

RECOVERY_THREADS_PER_DIRECTORY: Final = 2
UNLINK_AGAIN_MS: Final = 1000

# The config of a partition's log, given its name and topic id; None where the metadata doesn't know it (it is stray).
ConfigOf = Callable[[TopicPartition, bytes | None], LogConfig | None]

# Kafka's own metadata log, in a directory that is adopted: read by `cluster.adoption`, and left alone here.
_CLUSTER_METADATA: Final = TopicPartition("__cluster_metadata", 0)

_logger = logging.getLogger(__name__)


def _always(config: LogConfig) -> ConfigOf:
    def config_of(topic_partition: TopicPartition, topic_id: bytes | None) -> LogConfig | None:  # noqa: ARG001
        return config

    return config_of


class LogManager:
    """All logs of one broker; see the module's text."""

    def __init__(
        self,
        directories: Sequence[LogDirectory],
        *,
        files: FileSystem | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        open_segments_max: int = SEGMENTS_MAX,
        recovery_threads_per_directory: int = RECOVERY_THREADS_PER_DIRECTORY,
        producer_count_max: int = PRODUCER_COUNT_MAX,
        producer_expiration_ms: int = EXPIRATION_MS,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """Manage the logs in `directories`, whose file system it shares unless `files` is given."""
        self.directories = list(directories)
        self.logs: dict[TopicPartition, Log] = {}
        self.cache = OpenSegments(files or self._files_of(directories), size_max=open_segments_max)
        self._files = self.cache.files
        self._loop = loop
        self._threads = recovery_threads_per_directory
        self._producer_count_max = producer_count_max
        self._producer_expiration_ms = producer_expiration_ms
        self._now_ms = now_ms
        self._lock = threading.Lock()
        # One writes checkpoints at a time, and writes what it looked at. Taken inside of _lock, never around it.
        self._checkpoint_lock = threading.Lock()
        # Renamed files and folders that wait for their time, by when it comes.
        self._doomed: list[tuple[int, int, tuple[str, ...]]] = []
        self._doomed_count = 0
        for directory in self.directories:
            directory.loop = directory.loop or loop

    # The start.

    def load(
        self,
        config_of: ConfigOf | LogConfig,
        *,
        cluster_id: str = "",
        node_id: int = 1,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[TopicPartition, Log]:
        """Open every directory and every log in it; return `logs`. `on_progress(done, total)` counts partitions.

        Raises LogLockedError and InconsistentDirectoryError, which the operator must settle, and LogDirectoryError
        where no directory works at all.
        """
        if isinstance(config_of, LogConfig):
            config_of = _always(config_of)
        for directory in self.directories:
            with suppress(LogDirectoryError):  # said and marked already; the others serve on
                if not directory.is_open:
                    directory.open(cluster_id, node_id)
        loads: list[tuple[LogLoader, TopicPartition, str, LogDirectory]] = []
        for directory in self.online_directories():
            try:
                loads.extend(self._plan_directory(directory))
            except OSError as error:
                directory.failed(error, f"reading {directory.path}", always_offline=True)
        if not self.online_directories():
            raise LogDirectoryError(
                "no log directory works: " + "; ".join(str(d.offline_reason) for d in self.directories)
            )
        self._load_all(loads, config_of, on_progress)
        return self.logs

    def _plan_directory(self, directory: LogDirectory) -> list[tuple[LogLoader, TopicPartition, str, LogDirectory]]:
        mark = f"{directory.path}/{checkpoints.CLEAN_SHUTDOWN}"
        directory.was_clean = self._files.exists(mark)
        if directory.was_clean:
            directory.broker_epoch = checkpoints.decode_clean_shutdown(self._files.read_bytes(mark))
            self._files.unlink(mark)
            self._files.sync_directory(directory.path)
        recovery_points = self._read_offsets(directory, checkpoints.RECOVERY_POINT)
        log_start_offsets = self._read_offsets(directory, checkpoints.LOG_START_OFFSET)
        directory.note_checkpoint(checkpoints.RECOVERY_POINT, recovery_points)
        directory.note_checkpoint(checkpoints.LOG_START_OFFSET, log_start_offsets)
        directory.high_watermarks = self._read_offsets(directory, checkpoints.REPLICATION_OFFSET)
        first_dirty_offsets = self._read_offsets(directory, checkpoints.CLEANER_OFFSET)
        directory.note_checkpoint(checkpoints.CLEANER_OFFSET, first_dirty_offsets)
        folders = []
        for name, is_folder in self._files.list_names(directory.path):
            if not is_folder or name.endswith((STRAY_SUFFIX, FUTURE_SUFFIX)):
                continue
            path = f"{directory.path}/{name}"
            if name.endswith(DELETE_SUFFIX):
                self._doom(0, (path,))
            elif (topic_partition := TopicPartition.from_folder(name)) not in (None, _CLUSTER_METADATA):
                folders.append((topic_partition, path))
        if not directory.was_clean and folders:
            _logger.warning(
                "%s was not closed in good order: %d partitions are recovered", directory.path, len(folders)
            )
        now_ms = self._now_ms()
        loaders = [
            LogLoader(
                directory,
                self.cache,
                now_ms=now_ms,
                clean=directory.was_clean,
                recovery_points=recovery_points,
                log_start_offsets=log_start_offsets,
                first_dirty_offsets=first_dirty_offsets,
                producer_count_max=self._producer_count_max,
            )
            for _ in range(max(self._threads, 1))
        ]
        return [
            (loaders[index % len(loaders)], topic_partition, path, directory)
            for index, (topic_partition, path) in enumerate(sorted(folders))
        ]

    def _load_all(
        self,
        loads: list[tuple[LogLoader, TopicPartition, str, LogDirectory]],
        config_of: ConfigOf,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        # One loader is one thread's: its buffers are used again from log to log.
        by_loader: dict[LogLoader, list[tuple[TopicPartition, str, LogDirectory]]] = {}
        for loader, topic_partition, path, directory in loads:
            by_loader.setdefault(loader, []).append((topic_partition, path, directory))
        done = 0

        def load_some(loader: LogLoader, work: list[tuple[TopicPartition, str, LogDirectory]]) -> None:
            nonlocal done
            for topic_partition, path, directory in work:
                if directory.offline_reason is None:
                    self._load_one(loader, topic_partition, path, directory, config_of)
                with self._lock:
                    done += 1
                    count = done
                if on_progress is not None:
                    on_progress(count, len(loads))

        if by_loader:
            with ThreadPoolExecutor(len(by_loader), thread_name_prefix="log-recovery") as pool:
                for future in [pool.submit(load_some, loader, work) for loader, work in by_loader.items()]:
                    future.result()

    def _load_one(
        self,
        loader: LogLoader,
        topic_partition: TopicPartition,
        path: str,
        directory: LogDirectory,
        config_of: ConfigOf,
    ) -> None:
        try:
            topic_id = loader.topic_id(path)
            config = config_of(topic_partition, topic_id)
            if config is None:
                self._set_aside(path, topic_partition, "no metadata knows it")
                return
            log = loader.load(topic_partition, path, config)
        except LogDirectoryError:
            return  # said and marked already
        except OSError as error:
            directory.failed(error, f"loading {path}", always_offline=True)
            return
        with self._lock:
            if topic_partition in self.logs:
                other = self.logs[topic_partition]
                log.release()
                self._set_aside(path, topic_partition, f"the partition is also in {other.path}")
                return
            self.logs[topic_partition] = log

    def _set_aside(self, path: str, topic_partition: TopicPartition, why: str) -> None:
        folder = topic_partition.folder_with_suffix(STRAY_SUFFIX)
        _logger.error("%s: %s; it is kept as %s and not served", path, why, folder)
        self._files.rename(path, f"{path.rpartition('/')[0]}/{folder}")

    def _read_offsets(self, directory: LogDirectory, name: str) -> dict[TopicPartition, int]:
        path = f"{directory.path}/{name}"
        if not self._files.exists(path):
            return {}
        try:
            return checkpoints.decode_offsets(self._files.read_bytes(path))
        except CorruptCheckpointError as error:
            _logger.warning("%s: %s; it is taken as empty, so logs are recovered from further back", path, error)
            return {}

    # While running.

    def online_directories(self) -> list[LogDirectory]:
        """Return the directories that work."""
        return [directory for directory in self.directories if directory.offline_reason is None]

    def create_log(
        self,
        topic_partition: TopicPartition,
        topic_id: bytes,
        config: LogConfig,
        *,
        directory: LogDirectory | None = None,
    ) -> Log:
        """Make the folder of a new partition, in the directory with the fewest logs unless one is named.

        Returns the existing log where there is one of that topic id; one of another id is a leftover and set aside.
        Raises KafkaError KAFKA_STORAGE_ERROR where no directory works.
        """
        with self._lock:
            existing = self.logs.get(topic_partition)
            if existing is not None:
                if existing.topic_id in (None, topic_id):
                    return existing
                self._drop_leftover(existing)
            directory = directory or self._emptiest_directory()
            if directory.has_checkpointed(topic_partition):
                # What was checkpointed for an earlier topic of that name must not outlive it: after a crash the old log
                # start would be taken for the new log's, and everything before it as deleted.
                self.checkpoint()
            path = f"{directory.path}/{topic_partition}"
            try:
                if self._files.exists(path):
                    # Its topic was deleted, and a full disk or a crash kept the folder from being renamed.
                    stray = f"{directory.path}/{topic_partition.folder_with_suffix(STRAY_SUFFIX)}"
                    _logger.error("%s belongs to no topic; it is kept as %s", path, stray)
                    self._files.rename(path, stray)
                self._files.make_directory(path)
                metadata = checkpoints.encode_partition_metadata(topic_id)
                # Not synced: the metadata store knows the topic's id, and an empty log has nothing to lose. The first
                # flush syncs the folder.
                self._files.write_unsynced(f"{path}/{checkpoints.PARTITION_METADATA}", metadata)
                segment = Segment(self.cache, path, 0, created_ms=self._now_ms())
                segment.create()
                epochs = checkpoints.encode_leader_epochs([])
                self._files.write_unsynced(f"{path}/{checkpoints.LEADER_EPOCH}", epochs)
            except OSError as error:
                raise directory.failed(error, f"creating {path}") from error
            log = Log(
                directory,
                self.cache,
                topic_partition,
                path,
                config,
                Segments([segment]),
                topic_id=topic_id,
                log_start_offset=0,
                log_end_offset=0,
                flushed_offset=0,
                leader_epochs=LeaderEpochs(),
                producers=ProducerState(count_max=self._producer_count_max),
                snapshot_offset=0,
            )
            log.folder_changed = log.created = True
            self.logs[topic_partition] = log
            return log

    def delete_log(self, topic_partition: TopicPartition) -> None:
        """Take the partition away: its folder is renamed to `-delete` now and unlinked by `unlink_doomed` later."""
        with self._lock:
            log = self.logs.pop(topic_partition, None)
        if log is not None:
            path = f"{log.directory.path}/{topic_partition.folder_with_suffix(DELETE_SUFFIX)}"
            log.release()
            log.rename(path, "the partition is deleted")
            self._doom(self._now_ms() + log.config.file_delete_delay_ms, (path,))

    def delete_old_segments(self, now_ms: int, high_watermarks: Mapping[TopicPartition, int]) -> int:
        """Apply retention to every log that the mapping gives a high watermark; return the bytes that will be freed."""
        freed = 0
        for topic_partition, high_watermark in high_watermarks.items():
            log = self.logs.get(topic_partition)
            if log is not None and log.directory.offline_reason is None:
                with suppress(LogDirectoryError):  # said and marked already; the other logs go on
                    deleted = log.delete_old_segments(now_ms, high_watermark)
                    freed += sum(each.size_bytes for each in deleted)
                    self.doom(deleted)
                    log.store_index_tails()
        self.cache.close_idle()
        return freed

    def doom(self, deleted: Iterable[DeletedSegment]) -> None:
        """Take over the files that `Log.delete_old_segments` returned, for unlinking."""
        for each in deleted:
            self._doom(each.due_ms, each.paths)

    def unlink_doomed(self, now_ms: int | None = None) -> int:
        """Unlink renamed files and folders whose time has come; return how many. May block for long."""
        now_ms = self._now_ms() if now_ms is None else now_ms
        count = 0
        while True:
            with self._lock:
                if not self._doomed or self._doomed[0][0] > now_ms:
                    return count
                _, _, paths = heapq.heappop(self._doomed)
            for path in paths:
                count += 1
                try:
                    self._unlink(path)
                except FileNotFoundError:
                    continue  # its folder went first
                except OSError as error:
                    if error.errno == errno.ENOTEMPTY:  # somebody ended a file in it just now
                        self._doom(now_ms + UNLINK_AGAIN_MS, (path,))
                    else:
                        self._directory_of(path).failed(error, f"deleting {path}")

    def expire_producers(self, now_ms: int) -> int:
        """Forget producers that have not written for producer.id.expiration.ms; return how many."""
        count = 0
        for log in list(self.logs.values()):
            if len(log.producers):
                with log.lock:
                    count += log.producers.expire(now_ms, self._producer_expiration_ms)
        return count

    def checkpoint(self) -> None:
        """Write recovery points, log start offsets and first dirty offsets of every directory. Blocks."""
        self.checkpoint_recovery_points()
        self.checkpoint_log_start_offsets()
        self.checkpoint_cleaner()

    def checkpoint_recovery_points(self) -> None:
        """Write `recovery-point-offset-checkpoint`: what is synced. Blocks."""
        self._checkpoint(checkpoints.RECOVERY_POINT, lambda log: log.flushed_offset)

    def checkpoint_log_start_offsets(self) -> None:
        """Write `log-start-offset-checkpoint`: the starts that are not simply the first segment's. Blocks."""
        self._checkpoint(
            checkpoints.LOG_START_OFFSET,
            lambda log: log.log_start_offset if log.log_start_offset > log.segments.first.base_offset else None,
        )

    def checkpoint_cleaner(self) -> None:
        """Write `cleaner-offset-checkpoint`: up to where logs have been cleaned. Blocks."""
        self._checkpoint(checkpoints.CLEANER_OFFSET, lambda log: log.first_dirty_offset)

    def checkpoint_high_watermarks(self, high_watermarks: Mapping[TopicPartition, int]) -> None:
        """Write `replication-offset-checkpoint`. Blocks."""
        self._checkpoint(checkpoints.REPLICATION_OFFSET, lambda log: high_watermarks.get(log.topic_partition))

    def _checkpoint(self, name: str, offset_of: Callable[[Log], int | None]) -> None:
        with self._checkpoint_lock:
            offsets: dict[LogDirectory, dict[TopicPartition, int]] = {each: {} for each in self.online_directories()}
            for topic_partition, log in list(self.logs.items()):
                offset = offset_of(log)
                if offset is not None and log.directory in offsets:
                    offsets[log.directory][topic_partition] = offset
            for directory, of_directory in offsets.items():
                data = checkpoints.encode_offsets(of_directory)
                if directory.written_checkpoints.get(name) == data:
                    continue
                try:
                    self._files.write_atomically(f"{directory.path}/{name}", data)
                    directory.written_checkpoints[name] = data
                    directory.note_checkpoint(name, of_directory)
                except OSError as error:
                    directory.failed(error, f"writing {directory.path}/{name}")

    # The stop.

    def close(self, *, broker_epoch: int = -1, high_watermarks: Mapping[TopicPartition, int] | None = None) -> None:
        """Close every log, write the checkpoints and the clean-shutdown marks, and unlock. Blocks.

        A directory where anything fails gets no mark, so that its logs are recovered at the next start.
        """
        by_directory: dict[LogDirectory, list[Log]] = {directory: [] for directory in self.directories}
        for log in self.logs.values():
            by_directory[log.directory].append(log)
        for directory in self.directories:
            directory.finish()
        unclean: set[LogDirectory] = set()

        def close_some(directory: LogDirectory, logs: list[Log]) -> None:
            for log in logs:
                if directory.offline_reason is not None:
                    return
                try:
                    log.close()
                except LogDirectoryError:
                    unclean.add(directory)  # said already

        with ThreadPoolExecutor(2 * len(self.directories), thread_name_prefix="log-close") as pool:
            futures = [
                pool.submit(close_some, directory, logs[half::2])
                for directory, logs in by_directory.items()
                for half in (0, 1)
            ]
            for future in futures:
                future.result()
        self.checkpoint()
        if high_watermarks is not None:
            self.checkpoint_high_watermarks(high_watermarks)
        for directory in self.online_directories():
            if directory not in unclean and directory.is_open:
                try:
                    self._files.write_atomically(
                        f"{directory.path}/{checkpoints.CLEAN_SHUTDOWN}",
                        checkpoints.encode_clean_shutdown(broker_epoch),
                    )
                except OSError as error:
                    directory.failed(error, f"writing the clean-shutdown mark of {directory.path}")
        self.release()

    def release(self) -> None:
        """Let go of all files and locks without writing anything, as a crash would."""
        for log in self.logs.values():
            log.release()
        self.logs.clear()
        for directory in self.directories:
            directory.close()

    # Helpers.

    def _doom(self, due_ms: int, paths: tuple[str, ...]) -> None:
        with self._lock:
            self._doomed_count += 1
            heapq.heappush(self._doomed, (due_ms, self._doomed_count, paths))

    def _unlink(self, path: str) -> None:
        try:
            entries = self._files.list_names(path)
        except NotADirectoryError:
            self._files.unlink(path)
            return
        for name, is_folder in entries:
            if is_folder:
                self._unlink(f"{path}/{name}")
            else:
                self._files.unlink(f"{path}/{name}")
        self._files.remove_directory(path)

    def _directory_of(self, path: str) -> LogDirectory:
        return next(directory for directory in self.directories if path.startswith(directory.path + "/"))

    def _emptiest_directory(self) -> LogDirectory:
        online = [directory for directory in self.online_directories() if directory.read_only_reason is None]
        online = online or self.online_directories()
        if not online:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR, "no log directory works: see the broker's log for the reasons"
            )
        if len(online) == 1:
            return online[0]
        counts = dict.fromkeys(online, 0)
        for log in self.logs.values():
            if log.directory in counts:
                counts[log.directory] += 1
        return min(online, key=lambda directory: counts[directory])

    def _drop_leftover(self, log: Log) -> None:
        # A topic was deleted and made again while this directory was away.
        del self.logs[log.topic_partition]
        path = f"{log.directory.path}/{log.topic_partition.folder_with_suffix(STRAY_SUFFIX)}"
        _logger.error("%s belongs to an earlier topic of that name; it is kept as %s", log.path, path)
        log.release()
        log.rename(path, "it belongs to an earlier topic")

    @staticmethod
    def _files_of(directories: Sequence[LogDirectory]) -> FileSystem:
        return directories[0].files if directories else FileSystem()
