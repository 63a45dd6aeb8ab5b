"""All logs of a broker, over its log directories: loaded at the start, created, deleted, checkpointed, closed.

**Start.** Each directory is locked, then its partitions' folders are opened, several at a time (`directory_start`). A
directory that fails goes offline and its partitions with it; the others load on. A second copy of a partition becomes
`-stray`.

**Stop.** Every log is closed (indexes, snapshot, sync), the checkpoints are written, and last the clean-shutdown mark.

`load`, `create_log`, `delete_log`, `checkpoint...`, `close` block and are meant for a thread; `logs` may be read by
the event loop at any time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

from millstream.core.log import checkpoints
from millstream.core.log.config import LogConfig
from millstream.core.log.directory import LogDirectory
from millstream.core.log.directory_start import DirectoryStart, Owner, OwnerOf
from millstream.core.log.doomed_files import DoomedFiles
from millstream.core.log.errors import LogDirectoryError
from millstream.core.log.files import FileSystem
from millstream.core.log.leader_epochs import LeaderEpochs
from millstream.core.log.loader import LogLoader
from millstream.core.log.log import Log
from millstream.core.log.open_segments import SEGMENTS_MAX, OpenSegments
from millstream.core.log.placement import Placement
from millstream.core.log.producer_state import EXPIRATION_MS, PRODUCER_COUNT_MAX, ProducerState
from millstream.core.log.retention import DeletedSegment
from millstream.core.log.segment import Segment
from millstream.core.log.segments import Segments
from millstream.core.log.topic_partition import DELETE_SUFFIX, STRAY_SUFFIX, TopicPartition
from millstream.core.wire import ErrorCode, KafkaError

RECOVERY_THREADS_PER_DIRECTORY: Final = 2

_logger = logging.getLogger(__name__)

# A folder to be opened: by whom, and what is in it.
_Load = tuple[LogLoader, DirectoryStart, TopicPartition, str]


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
        self.placement = Placement(self._files)
        self._loop = loop
        self._threads = recovery_threads_per_directory
        self._producer_count_max = producer_count_max
        self._producer_expiration_ms = producer_expiration_ms
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._doomed = DoomedFiles(self._files)
        self._starts = [
            DirectoryStart(
                directory,
                self.cache,
                doom=lambda path: self._doomed.add(0, (path,)),
                note_future=self.placement.note_folder,
                producer_count_max=producer_count_max,
            )
            for directory in self.directories
        ]
        for directory in self.directories:
            directory.loop = directory.loop or loop

    # The start.

    def load(
        self,
        owner_of: OwnerOf | LogConfig,
        *,
        cluster_id: str = "",
        node_id: int = 1,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[TopicPartition, Log]:
        """Open every directory and every log in it; return `logs`. `on_progress(done, total)` counts partitions.

        With a LogConfig every folder is taken for a log of that config. Raises LogLockedError and
        InconsistentDirectoryError, which the operator must settle, and LogDirectoryError where no directory works.
        """
        if isinstance(owner_of, LogConfig):
            owner_of = _always(owner_of)
        for directory in self.directories:
            with suppress(LogDirectoryError):  # said and marked already; the others serve on
                if not directory.is_open:
                    directory.open(cluster_id, node_id)
        loads: list[_Load] = []
        now_ms = self._now_ms()
        for start in self._starts:
            if start.directory.offline_reason is None:
                try:
                    folders = start.plan()
                except OSError as error:
                    start.directory.failed(error, f"reading {start.directory.path}", always_offline=True)
                    continue
                loaders = [start.loader(now_ms) for _ in range(max(self._threads, 1))]
                loads.extend((loaders[at % len(loaders)], start, *folder) for at, folder in enumerate(folders))
        if not self.online_directories():
            raise LogDirectoryError(
                "no log directory works: " + "; ".join(str(d.offline_reason) for d in self.directories)
            )
        self._load_all(loads, owner_of, on_progress)
        is_complete = len(self.online_directories()) == len(self.directories)
        self.placement.sort_out(self.logs, is_complete=is_complete, doom=self.doom_folder)
        return self.logs

    def _load_all(
        self, loads: Sequence[_Load], owner_of: OwnerOf, on_progress: Callable[[int, int], None] | None
    ) -> None:
        # One loader is one thread's: its buffers are used again from log to log.
        by_loader: dict[LogLoader, list[_Load]] = {}
        for load in loads:
            by_loader.setdefault(load[0], []).append(load)
        done = 0

        def load_some(work: Sequence[_Load]) -> None:
            nonlocal done
            for loader, start, topic_partition, path in work:
                if start.directory.offline_reason is None:
                    log = start.load(loader, topic_partition, path, owner_of)
                    if log is not None:
                        self._add_loaded(log)
                with self._lock:
                    done += 1
                    count = done
                if on_progress is not None:
                    on_progress(count, len(loads))

        if by_loader:
            with ThreadPoolExecutor(len(by_loader), thread_name_prefix="log-recovery") as pool:
                for future in [pool.submit(load_some, work) for work in by_loader.values()]:
                    future.result()

    def _add_loaded(self, log: Log) -> None:
        with self._lock:
            other = self.logs.setdefault(log.topic_partition, log)
            if other is log:
                return
            if other.log_end_offset < log.log_end_offset:  # a move was cut short between its two renames
                other, log = log, other
                self.logs[log.topic_partition] = other
        log.release()
        start = next(each for each in self._starts if each.directory is log.directory)
        try:
            start.set_aside(log.path, log.topic_partition, f"the partition is also in {other.path}")
        except OSError as error:
            start.directory.failed(error, f"renaming {log.path}")

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
                if existing.topic_id is None:
                    existing.assign_topic_id(topic_id)
                if existing.topic_id == topic_id:
                    return existing
                self._drop_leftover(existing)
            log = self._open_found(topic_partition, Owner(topic_id, config))
            if log is None:
                directory = directory or self.placement.take_preferred(topic_partition) or self._emptiest_directory()
                log = self._create(topic_partition, topic_id, config, directory)
            self.logs[topic_partition] = log
            for start in self._starts:
                start.unloaded.discard(topic_partition)  # only now: a checkpoint finds it in one of the two
            return log

    def _open_found(self, topic_partition: TopicPartition, owner: Owner) -> Log | None:
        # A folder of that name is no log of ours: it could not be opened at the start, or its topic was deleted and
        # a shortage or a crash kept it from being renamed.
        for start in self._starts:
            directory = start.directory
            path = f"{directory.path}/{topic_partition}"
            if directory.offline_reason is not None or not self._files.exists(path):
                continue
            loader = start.loader(self._now_ms())
            try:
                if topic_partition in start.unloaded and loader.topic_id(path) in (None, owner.topic_id):
                    return start.open(loader, topic_partition, path, owner)
                start.set_aside(path, topic_partition, "it belongs to no topic")
                start.unloaded.discard(topic_partition)
            except OSError as error:
                raise directory.failed(error, f"opening {path}") from error
        return None

    def _create(
        self, topic_partition: TopicPartition, topic_id: bytes, config: LogConfig, directory: LogDirectory
    ) -> Log:
        if directory.checkpoints.outlives(topic_partition):
            # What was checkpointed for an earlier topic of that name must not outlive it: after a crash the old log
            # start would be taken for the new log's, and everything before it as deleted.
            self.checkpoint()
        directory.high_watermarks.pop(topic_partition, None)
        path = f"{directory.path}/{topic_partition}"
        try:
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
        return log

    def delete_log(self, topic_partition: TopicPartition) -> None:
        """Take the partition away: its folder is renamed to `-delete` now and unlinked by `unlink_doomed` later."""
        with self._lock:
            log = self.logs.pop(topic_partition, None)
        if log is not None:
            with log.lock:  # a move that arrives meanwhile changes the directory
                path = f"{log.directory.path}/{topic_partition.folder_with_suffix(DELETE_SUFFIX)}"
                log.release()
                log.rename(path, "the partition is deleted")
            self._doomed.add(self._now_ms() + log.config.file_delete_delay_ms, (path,))

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
            self._doomed.add(each.due_ms, each.paths)

    def doom_folder(self, path: str, delay_ms: int = 0) -> None:
        """Take over a renamed folder, for unlinking."""
        self._doomed.add(self._now_ms() + delay_ms, (path,))

    def unlink_doomed(self, now_ms: int | None = None) -> int:
        """Unlink renamed files and folders whose time has come; return how many. May block for long."""
        return self._doomed.unlink_due(
            self._now_ms() if now_ms is None else now_ms,
            lambda error, path: self._directory_of(path).failed(error, f"deleting {path}"),
        )

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
            _log_start_of_its_own,
        )

    def checkpoint_cleaner(self) -> None:
        """Write `cleaner-offset-checkpoint`: up to where logs have been cleaned. Blocks."""
        self._checkpoint(checkpoints.CLEANER_OFFSET, lambda log: log.first_dirty_offset)

    @contextmanager
    def arrival(self, log: Log, directory: LogDirectory) -> Iterator[None]:
        """Let the checkpoints of `directory` say what holds for a log that is about to lie there, all of it synced.

        No checkpoint is written before the context ends, and then the log is where `log.directory` says. Raises
        OSError.
        """
        with directory.checkpoints.lock:
            for name, offset in (
                (checkpoints.RECOVERY_POINT, log.log_end_offset),
                (checkpoints.LOG_START_OFFSET, _log_start_of_its_own(log)),
                (checkpoints.CLEANER_OFFSET, log.first_dirty_offset),
            ):
                offsets = directory.checkpoints.read(name)
                offsets.pop(log.topic_partition, None)
                if offset is not None:
                    offsets[log.topic_partition] = offset
                directory.checkpoints.write(name, offsets)
            yield

    def checkpoint_high_watermarks(self, high_watermarks: Mapping[TopicPartition, int]) -> None:
        """Write `replication-offset-checkpoint`. Blocks."""
        self._checkpoint(checkpoints.REPLICATION_OFFSET, lambda log: high_watermarks.get(log.topic_partition))

    def _checkpoint(self, name: str, offset_of: Callable[[Log], int | None]) -> None:
        for start in self._starts:
            directory = start.directory
            if directory.offline_reason is not None:
                continue
            with directory.checkpoints.lock:  # a log that moves is there or not, for as long as it is held
                found = [(each, directory.checkpoints.on_disk(name, each)) for each in list(start.unloaded)]
                logs = [log for log in self.logs.copy().values() if log.directory is directory]
                found += [(log.topic_partition, offset_of(log)) for log in logs]
                try:
                    directory.checkpoints.write(name, {each: offset for each, offset in found if offset is not None})
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
        with log.lock:
            path = f"{log.directory.path}/{log.topic_partition.folder_with_suffix(STRAY_SUFFIX)}"
            _logger.error("%s belongs to an earlier topic of that name; it is kept as %s", log.path, path)
            log.release()
            log.rename(path, "it belongs to an earlier topic")

    @staticmethod
    def _files_of(directories: Sequence[LogDirectory]) -> FileSystem:
        return directories[0].files if directories else FileSystem()


def _always(config: LogConfig) -> OwnerOf:
    def owner_of(_topic_partition: TopicPartition, topic_id: bytes | None) -> Owner:
        return Owner(topic_id, config)

    return owner_of


def _log_start_of_its_own(log: Log) -> int | None:
    """Return the log's start where it is not simply its first segment's."""
    return log.log_start_offset if log.log_start_offset > log.segments.first.base_offset else None
