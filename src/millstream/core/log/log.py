"""One partition on disk: appended in two steps, read anywhere, rolled, truncated, trimmed.

**Append is two steps.** `reserve` runs on the event loop and does no I/O: it drops duplicates, refuses gaps, assigns
offsets and queues the bytes. `write` puts everything queued into the active segment with one system call. Between the
two, `reserved_end_offset` runs ahead of `log_end_offset`. Once written, `flush` makes it durable and moves
`flushed_offset`.

**Who may call what.** `reserve`, `can_write_inline` and `forget_reserved` belong to the event loop. `read` is for any
thread (with `wait=False`, also for the loop). `write` may run on the loop only while `can_write_inline`, else on the
log directory's writer thread: it may then roll (open, create, seal). Everything else blocks and runs on a thread. What
changes the log holds `lock`; `flush` syncs outside of it, so that appends go on meanwhile.

**Failures.** A write that fails is taken back: the file is cut to where it was, the queue and the reserved producer
state are dropped, and everybody who waits is told. A full disk or too few descriptors leave the directory in service;
any other error takes it offline (`LogDirectory`).

    log_start_offset <= flushed_offset' <= log_end_offset <= reserved_end_offset     (flushed_offset' = the larger of
    the two lower ends)
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.log import checkpoints, retention, segment_scan, timestamps, transactions, truncation
from millstream.core.log.config import LogConfig
from millstream.core.log.damage import CorruptRange
from millstream.core.log.errors import LogDirectoryError, OffsetOutOfRangeError
from millstream.core.log.files import Buffer
from millstream.core.log.log_reader import LogRead, LogReader
from millstream.core.log.offset_index import TAIL_ENTRIES_MAX
from millstream.core.log.producer_state import ProducerEntry, ProducerState, encode_snapshot
from millstream.core.log.rolling import RollLimits, roll_limits
from millstream.core.log.segment import (
    SNAPSHOT_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    Segment,
    file_stem,
)
from millstream.core.records import BatchHeader, set_log_fields
from millstream.core.wire import ErrorCode, KafkaError

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.leader_epochs import LeaderEpochs
    from millstream.core.log.open_segments import OpenSegments
    from millstream.core.log.retention import DeletedSegment
    from millstream.core.log.segments import Segments
    from millstream.core.log.timestamps import TimestampOffset
    from millstream.core.log.topic_partition import TopicPartition
    from millstream.core.log.transaction_index import AbortedTransaction

# Linux takes at most this many buffers in one call (IOV_MAX).
BUFFERS_MAX: Final = 1024


class Reservation(NamedTuple):
    """Where a reserved batch will stand; `duplicate` says that it already stands there, or is pending, from before.

    A duplicate is acknowledged like any other: not before log_end_offset has passed last_offset.
    """

    first_offset: int
    last_offset: int
    log_append_time_ms: int  # -1 unless the topic stamps LogAppendTime
    log_start_offset: int
    duplicate: bool = False


class _Pending(NamedTuple):
    # One reserved batch. `entry` is its producer's state behind it, `marker` whether it ends a transaction.
    data: Buffer
    first_offset: int
    last_offset: int
    timestamp: int
    leader_epoch: int
    entry: ProducerEntry | None
    marker: BatchHeader | None = None


class Log:
    """One partition on disk; see the module's text."""

    __slots__ = (
        "__weakref__",
        "_inline_limits",
        "_last_now_ms",
        "_markers",
        "_pending",
        "_reader",
        "_reserved_bytes",
        "_reserved_epoch",
        "_reserved_timestamp",
        "_written_bytes",
        "cache",
        "config",
        "created",
        "directory",
        "failure",
        "flushed_offset",
        "folder_changed",
        "generation",
        "is_deleted",
        "leader_epochs",
        "lock",
        "log_end_offset",
        "log_start_offset",
        "path",
        "producers",
        "reserved_end_offset",
        "segments",
        "snapshot_offset",
        "topic_id",
        "topic_partition",
        "unsynced",
    )

    def __init__(
        self,
        directory: LogDirectory,
        cache: OpenSegments,
        topic_partition: TopicPartition,
        path: str,
        config: LogConfig,
        segments: Segments,
        *,
        topic_id: bytes | None,
        log_start_offset: int,
        log_end_offset: int,
        flushed_offset: int,
        leader_epochs: LeaderEpochs,
        producers: ProducerState,
        snapshot_offset: int,
    ) -> None:
        """Take over what `loader` found on disk or `LogManager.create_log` made there."""
        self.directory = directory
        self.topic_partition = topic_partition
        self.path = path
        self.topic_id = topic_id
        self.config = config
        self.segments = segments
        self.leader_epochs = leader_epochs
        self.producers = producers
        # First offset that a reader may ask for. Moves up only, by retention and DeleteRecords.
        self.log_start_offset = log_start_offset
        # One behind the last written offset. Moves when a write has ended; down only by truncation.
        self.log_end_offset = log_end_offset
        # One behind the last reserved offset; owned by the loop. Invariant: >= log_end_offset.
        self.reserved_end_offset = log_end_offset
        # The recovery point: everything before it is on the disk itself.
        self.flushed_offset = flushed_offset
        # Grows when reservations were dropped: a write that was submitted for an older one must fail.
        self.generation = 0
        # Why writing failed, until the loop has dropped the reservations (forget_reserved).
        self.failure: LogDirectoryError | None = None
        self.cache = cache
        self._reader = LogReader(str(topic_partition), segments, cache, lambda: self.log_end_offset, self.rebuild_index)
        # Reserved and not yet written, in offset order. The loop appends, the writer pops.
        self._pending: deque[_Pending] = deque()
        # Bytes ever reserved (counted by the loop) and ever written or dropped (by the writer).
        self._reserved_bytes = 0
        self._written_bytes = 0
        self._reserved_epoch = leader_epochs.latest_epoch
        self._reserved_timestamp = -1
        # Transaction markers reserved; writing one opens the transaction index, so it is not done on the loop.
        self._markers = 0
        self._last_now_ms = segments.active.created_ms
        # What the active segment can take; worked out by _limit.
        self._inline_limits = self._nothing_inline()
        # Offset of the newest producer snapshot on disk.
        self.snapshot_offset = snapshot_offset
        # Sealed segments whose files are not synced yet, and whether names in the folder are not.
        self.unsynced: tuple[Segment, ...] = ()
        self.folder_changed = False
        # Whether the folder itself is new: its name and its topic id are made durable with the first flush.
        self.created = False
        # The partition is deleted: its folder is going, and what fails on it says nothing about the disk.
        self.is_deleted = False
        self.lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Log {self.path} {self.log_start_offset}..{self.log_end_offset}>"

    # What it knows.

    @property
    def size_bytes(self) -> int:
        """Bytes of batches in all segments."""
        return self.segments.size_bytes

    @property
    def first_unstable_offset(self) -> int | None:
        """The first offset of the oldest transaction still open here, None without one."""
        return self.producers.first_unstable_offset

    @property
    def corrupt_ranges(self) -> tuple[CorruptRange, ...]:
        """Damage that was found and is kept but not served."""
        return self._reader.corrupt_ranges

    @property
    def reader(self) -> LogReader:
        return self._reader

    # Appending, on the event loop.

    def reserve(
        self, batch: Buffer, header: BatchHeader, *, leader_epoch: int, now_ms: int, copy: bool = True
    ) -> Reservation:
        """Assign offsets to a validated batch and queue it; no I/O.

        With `copy` false the (writable) buffer is patched in place, and must stay valid and untouched until the batch
        is written or dropped. Raises KafkaError for a batch that the producer's state refuses, and LogDirectoryError
        where the directory is offline or a failed write has not been dealt with.
        """
        if self.failure is not None or self.directory.offline_reason is not None:
            raise self.failure or self.directory.offline_error()
        first_offset = self.reserved_end_offset
        entry = None
        if header.producer_id >= 0:
            original = self.producers.duplicate_of(header)
            if original is not None:
                time_ms = original.timestamp if self.config.log_append_time else -1
                return Reservation(original.first_offset, original.last_offset, time_ms, self.log_start_offset, True)
        last_offset = first_offset + header.last_offset_delta
        size = len(batch)
        if size > self.config.segment_bytes:
            raise KafkaError(
                ErrorCode.RECORD_LIST_TOO_LARGE,
                f"a batch of {size} bytes does not fit segments of {self.config.segment_bytes} (segment.bytes)",
            )
        if header.producer_id >= 0:
            entry = self.producers.reserve(header, first_offset, now_ms)
        data = batch if not copy and not isinstance(batch, bytes) else bytearray(batch)
        if self.config.log_append_time:
            set_log_fields(data, first_offset, leader_epoch, log_append_time_ms=now_ms)
            timestamp = append_time_ms = now_ms
        else:
            set_log_fields(data, first_offset, leader_epoch, max_timestamp=header.max_timestamp)
            timestamp, append_time_ms = header.max_timestamp, -1
        self._pending.append(_Pending(data, first_offset, last_offset, timestamp, leader_epoch, entry))
        self.reserved_end_offset = last_offset + 1
        self._reserved_bytes += size
        self._reserved_epoch = leader_epoch
        self._last_now_ms = now_ms
        if timestamp > self._reserved_timestamp:
            self._reserved_timestamp = timestamp
        return Reservation(first_offset, last_offset, append_time_ms, self.log_start_offset)

    @property
    def can_write_inline(self) -> bool:
        """Whether `write` would now be one append to an open file: no roll, no open, nobody else at work."""
        limits = self._inline_limits
        segment = limits.segment
        return (
            segment.opened is not None
            and limits.config is self.config
            and segment.size_bytes + self._reserved_bytes - self._written_bytes <= limits.size_bytes
            and self._reserved_timestamp <= limits.timestamp
            and self._reserved_epoch == limits.leader_epoch
            and self.reserved_end_offset <= limits.end_offset
            and self.failure is None
            and not self._markers
            and self.lock.acquire(blocking=False)
            and self._released()
        )

    def forget_reserved(self) -> None:
        """Drop everything reserved and not written, and take appends again; on the loop, after a failed write."""
        with self.lock:
            self._pending.clear()
            self._written_bytes = self._reserved_bytes
            self.producers.forget_reserved()
            self.reserved_end_offset = self.log_end_offset
            self._reserved_epoch = self.leader_epochs.latest_epoch
            self._reserved_timestamp = -1
            self._markers = 0
            self._inline_limits = self._nothing_inline()
            self.generation += 1
            self.failure = None

    # Writing, inline or on the directory's writer thread.

    def write(self) -> int:
        """Write everything reserved; return the new log_end_offset.

        Raises LogDirectoryError; then nothing of it is in the log, and the reservations are dropped.
        """
        try:
            return self.write_reserved(self.generation)
        except LogDirectoryError:
            self.forget_reserved()
            raise

    def write_reserved(self, generation: int) -> int:
        """Write everything reserved, for reservations of `generation`; on failure the loop forgets."""
        with self.lock:
            if self.is_deleted:
                raise LogDirectoryError(f"{self.path}: the partition is deleted", shortage=True)
            if self.failure is not None:
                raise self.failure
            if generation != self.generation:
                raise LogDirectoryError(
                    f"{self.path}: an earlier write failed, and this one stood behind it", shortage=True
                )
            pending = self._pending
            items = [pending.popleft() for _ in range(len(pending))]
            if not items:
                return self.log_end_offset
            try:
                segment = self.segments.active
                if not segment.is_prepared:
                    self.load_max_timestamp(segment)
                    segment.prepare_append()
                    self._limit()
                size = sum([len(item.data) for item in items])
                timestamp = max([item.timestamp for item in items])
                if self._roll_due(segment.size_bytes + size, items[-1].last_offset + 1, timestamp):
                    self._write_rolling(items)
                else:
                    self._append(segment, items, size)
            except OSError as error:
                self.failure = self._failed(error, f"appending to {self.path}")
                raise self.failure from error
            if self.leader_epochs.changed:
                self._write_leader_epochs_if_possible()
            return self.log_end_offset

    def roll(self) -> None:
        """Seal the active segment and start a new one at log_end_offset. Blocks."""
        with self.lock:
            try:
                self._roll(self.log_end_offset)
            except OSError as error:
                raise self._failed(error, f"rolling {self.path}") from error

    def flush(self) -> int:
        """Make everything written durable; return the new flushed_offset. Blocks, but not those who append.

        Raises LogDirectoryError. After a failed sync the directory is offline: the system may have dropped the
        pages, so that trying again would only seem to succeed.
        """
        with self.lock:
            end_offset = self.log_end_offset
            sealed = self.unsynced
            folder_changed, created = self.folder_changed, self.created
            if end_offset <= self.flushed_offset and not sealed:
                return self.flushed_offset
            active = self.segments.active
        files = self.cache.files
        try:
            for segment in sealed:
                try:
                    opened = segment.files()
                    files.fsync(opened.log_fd)
                    files.fsync(opened.index_fd())
                    files.fsync(opened.time_index_fd())
                except FileNotFoundError:
                    if segment in tuple(self.segments):
                        raise
                    # Retention let go of it meanwhile.
            if active.size_bytes and end_offset > active.base_offset:
                files.fdatasync(active.files().log_fd)
            if folder_changed:
                files.sync_directory(self.path)
            if created:
                if self.topic_id is not None:
                    metadata = checkpoints.encode_partition_metadata(self.topic_id)
                    files.write_atomically(f"{self.path}/{checkpoints.PARTITION_METADATA}", metadata)
                files.sync_directory(self.directory.path)
        except OSError as error:
            raise self._failed(error, f"syncing {self.path}", always_offline=True) from error
        with self.lock:
            self.unsynced = tuple(segment for segment in self.unsynced if segment not in sealed)
            if created:
                self.created = False
            if folder_changed and not self.unsynced:
                self.folder_changed = False
            self.flushed_offset = max(self.flushed_offset, min(end_offset, self.log_end_offset))
            return self.flushed_offset

    # Reading.

    def read(
        self,
        offset: int,
        size_bytes_max: int,
        *,
        end_offset: int | None = None,
        at_least_one: bool = True,
        wait: bool = True,
        buffer: bytearray | memoryview | None = None,
    ) -> LogRead:
        """Read whole, CRC-checked batches from the one that holds `offset` on, at most `size_bytes_max` bytes of them.

        Only batches that end before `end_offset` (default: what is written). With `at_least_one` the first batch is
        given even where it alone is larger. With `buffer` the bytes are read into it, and the result is a view of it,
        where the first batch fits. `wait` false never waits for the disk and raises BlockingIOError instead: come
        again on a thread. Raises OffsetOutOfRangeError, CorruptBatchError (whose next_offset steps over),
        LogDirectoryError.
        """
        log_end_offset = self.log_end_offset
        if not self.log_start_offset <= offset <= log_end_offset:
            raise OffsetOutOfRangeError(offset, self.log_start_offset, log_end_offset)
        if end_offset is None or end_offset > log_end_offset:
            end_offset = log_end_offset
        if offset >= end_offset:
            return LogRead(memoryview(b""), offset, offset)
        try:
            return self._reader.read(
                offset, size_bytes_max, end_offset, at_least_one=at_least_one, wait=wait, buffer=buffer
            )
        except BlockingIOError:
            raise
        except OSError as error:
            if offset < self.log_start_offset:  # the segment was deleted while we read
                raise OffsetOutOfRangeError(offset, self.log_start_offset, log_end_offset) from error
            raise self._failed(error, f"reading {self.path}") from error

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """Return (epoch, end offset) as OffsetForLeaderEpoch answers them; (-1, -1) where nothing is known."""
        return self.leader_epochs.end_offset_for(epoch, self.log_end_offset)

    def offset_for_timestamp(self, timestamp: int) -> TimestampOffset | None:
        """Return the first record at or after `timestamp`, None where there is none. Blocks."""
        with self.storage_errors("looking up a timestamp in"):
            return timestamps.offset_for_timestamp(self, timestamp)

    def max_timestamp_offset(self) -> TimestampOffset | None:
        """Return the first record with the largest timestamp, None in an empty log. Blocks."""
        with self.storage_errors("looking up the largest timestamp of"):
            return timestamps.max_timestamp_offset(self)

    # Changing what is there. All of it blocks.

    def truncate_to(self, offset: int) -> None:
        """Drop every batch that holds offsets at or behind `offset`."""
        with self.storage_errors("truncating"):
            truncation.truncate_to(self, offset)

    def truncate_fully_at(self, offset: int) -> None:
        """Drop everything and continue at `offset`."""
        with self.storage_errors("truncating"):
            truncation.truncate_fully_at(self, offset)

    def move_log_start(self, offset: int) -> bool:
        """Raise log_start_offset; False where it is there already. OffsetOutOfRangeError behind the end.

        Segments before it go with the next `delete_old_segments`; the checkpoint makes it last over a restart.
        """
        if offset > self.log_end_offset:
            raise OffsetOutOfRangeError(offset, self.log_start_offset, self.log_end_offset)
        if offset <= self.log_start_offset:
            return False
        with self.lock, self.storage_errors("moving the start of"):
            self.log_start_offset = offset
            self.leader_epochs.truncate_from_start(offset)
            if self.leader_epochs.changed:
                self.write_leader_epochs()
        return True

    def delete_old_segments(self, now_ms: int, high_watermark: int) -> list[DeletedSegment]:
        """Drop segments that retention or the log start has left behind; return what is to be unlinked later.

        Their files are renamed to `.deleted`; LogManager unlinks them after file.delete.delay.ms.
        """
        with self.storage_errors("deleting old segments of"):
            return retention.delete_old_segments(self, now_ms, high_watermark)

    # Producers and transactions.

    def active_producers(self) -> list[ProducerEntry]:
        """Return what DescribeProducers tells."""
        return self.producers.entries()

    def open_transactions(self) -> list[ProducerEntry]:
        """Return the producers with an open transaction."""
        return self.producers.open_transactions()

    def aborted_transactions(self, start_offset: int, end_offset: int) -> list[AbortedTransaction]:
        """Return the aborted transactions that a reader of [start_offset, end_offset) has to leave out. Blocks."""
        with self.storage_errors("reading the transaction indexes of"):
            return transactions.aborted_transactions(self, start_offset, end_offset)

    @property
    def has_aborted_transactions(self) -> bool:
        """Whether `aborted_transactions` could return any; no I/O, so that the loop can tell."""
        return any(segment.transaction_bytes for segment in self.segments)

    def abort_open_transaction(
        self, producer_id: int, producer_epoch: int, coordinator_epoch: int, *, leader_epoch: int, now_ms: int
    ) -> Reservation:
        """Reserve the marker that aborts a producer's open transaction; on the loop, then `write` as ever.

        Raises KafkaError INVALID_TXN_STATE where none is open, INVALID_PRODUCER_EPOCH for an older epoch.
        """
        entry = self.producers.entry(producer_id)
        batch, marker, ended = transactions.abort_marker_batch(
            entry, producer_id, producer_epoch, coordinator_epoch, self.reserved_end_offset, leader_epoch, now_ms
        )
        offset = self.reserved_end_offset
        self.producers.reserve_entry(ended)
        self._pending.append(_Pending(batch, offset, offset, now_ms, leader_epoch, ended, marker))
        self.reserved_end_offset = offset + 1
        self._reserved_bytes += len(batch)
        self._reserved_epoch = leader_epoch
        self._reserved_timestamp = max(self._reserved_timestamp, now_ms)
        self._last_now_ms = now_ms
        self._markers += 1
        return Reservation(offset, offset, -1, self.log_start_offset)

    # Closing.

    def close(self) -> None:
        """Write out indexes and the producers' state, sync everything, and let go of the files. Blocks.

        Afterwards flushed_offset is log_end_offset, and a clean start needs to read no record.
        """
        with self.lock, self.storage_errors("closing"):
            active = self.segments.active
            if active.is_active and active.size_bytes and active.opened is not None:
                assert active.time_index is not None, f"{active.stem} is active"
                if not active.is_prepared:
                    self.load_max_timestamp(active)
                    active.prepare_append()
                active.time_index.maybe_append(active.max_timestamp, active.max_timestamp_offset)
                active.store_tails()
                if self.log_end_offset > self.flushed_offset:
                    self.mark_unsynced([active])
            if self.log_end_offset > self.log_start_offset or len(self.producers):
                self.write_snapshot(self.log_end_offset)
        self.flush()
        self.release()

    def release(self) -> None:
        """Let go of the files without writing anything."""
        for segment in self.segments:
            segment.close()

    def store_index_tails(self) -> None:
        """Write index entries that wait in memory, so that an idle log holds none. Blocks for small writes."""
        with self.lock, self.storage_errors("writing the indexes of"):
            if not self.is_deleted:
                self.segments.active.store_tails()

    def rename(self, path: str, *, deleted: bool = False) -> None:
        """Move the log's folder to `path` (in the same log directory). Blocks.

        With `deleted` the folder may go at any time: nothing is written any more, and whoever still works on the log
        is answered an error that leaves the directory online.
        """
        with self.lock:
            self.is_deleted = deleted
            try:
                self.cache.files.rename(self.path, path)
                self.cache.files.sync_directory(self.directory.path)
            except OSError as error:
                raise self.directory.failed(error, f"renaming {self.path}") from error
            self.path = path
            for segment in self.segments:
                segment.move(path)

    # What the parts above share.

    def _failed(self, error: OSError, doing: str, *, always_offline: bool = False) -> LogDirectoryError:
        if self.is_deleted:
            return LogDirectoryError(f"{doing} failed: the partition is deleted", shortage=True)
        return self.directory.failed(error, doing, always_offline=always_offline)

    @contextmanager
    def storage_errors(self, doing: str) -> Iterator[None]:
        """Turn an OSError into the LogDirectoryError that it means for the directory."""
        try:
            yield
        except OSError as error:
            raise self._failed(error, f"{doing} {self.path}") from error

    def mark_unsynced(self, segments: Iterable[Segment]) -> None:
        """Their files are to be synced by the next flush."""
        with self.lock:
            self.unsynced = (*self.unsynced, *(segment for segment in segments if segment not in self.unsynced))
            self.folder_changed = True

    def _released(self) -> bool:
        self.lock.release()
        return True

    def _nothing_inline(self) -> RollLimits:
        # Limits that allow nothing: the next write works them out again, on a thread.
        return RollLimits(self.segments.active, self.config, -1, -1, -1, False, -2)

    def _limit(self) -> RollLimits:
        limits = roll_limits(
            self.segments.active,
            self.config,
            self.topic_partition.partition,
            self.leader_epochs.latest_epoch,
            self._last_now_ms,
        )
        self._inline_limits = limits
        return limits

    def _roll_due(self, size_bytes: int, end_offset: int, timestamp: int) -> bool:
        # Whether the active segment has to be rolled before it grows to this.
        limits = self._inline_limits
        known = limits.segment is self.segments.active and limits.config is self.config
        if known and limits.allow(size_bytes, end_offset, timestamp):
            return False
        return not self._limit().allow(size_bytes, end_offset, timestamp)

    def _write_rolling(self, items: list[_Pending]) -> None:
        run: list[_Pending] = []
        run_bytes = 0
        for item in items:
            size = self.segments.active.size_bytes + run_bytes + len(item.data)
            if not self._roll_due(size, item.last_offset + 1, item.timestamp):
                run.append(item)
                run_bytes += len(item.data)
                continue
            # Not all of it at once; this batch alone may still fit.
            if run:
                self._append(self.segments.active, run, run_bytes)
                run, run_bytes = [], 0
            if not self._limit().allow_batch(size, item.last_offset + 1, item.timestamp):
                self._roll(item.first_offset)
            self._append(self.segments.active, [item], len(item.data))
        if run:
            self._append(self.segments.active, run, run_bytes)

    def _append(self, segment: Segment, items: list[_Pending], size: int) -> None:
        # One system call (for up to BUFFERS_MAX batches), then what is known of the segment moves.
        position = segment.size_bytes
        opened = segment.files()
        buffers = [item.data for item in items]
        if len(buffers) > BUFFERS_MAX:
            buffers = [b"".join(buffers)]
        files = self.cache.files
        try:
            done = files.pwritev(opened.log_fd, buffers, position)
            if done < size:
                files.write_all(opened.log_fd, memoryview(b"".join(buffers))[done:], position + done)
        except OSError:
            self._cut(opened.log_fd, position)
            raise
        self._written_bytes += size
        offset_index, time_index = segment.offset_index, segment.time_index
        assert offset_index is not None, f"{segment.stem} is not active"
        assert time_index is not None, f"{segment.stem} is not active"
        changed = not position
        if changed:
            segment.first_timestamp = items[0].timestamp
        interval = self.config.index_interval_bytes
        since = segment.bytes_since_index
        latest_epoch = self.leader_epochs.latest_epoch
        for data, first_offset, last_offset, timestamp, epoch, entry, marker in items:
            if timestamp > segment.max_timestamp:
                segment.max_timestamp, segment.max_timestamp_offset = timestamp, last_offset
            if since > interval:
                offset_index.append(last_offset, position)
                time_index.maybe_append(segment.max_timestamp, segment.max_timestamp_offset)
                since = 0
            since += len(data)
            position += len(data)
            if epoch != latest_epoch:
                self.leader_epochs.assign(epoch, first_offset)
                latest_epoch = epoch
                changed = True
            if marker is not None:
                self._end_transaction(segment, marker, entry)
            elif entry is not None:
                self.producers.apply(entry)
        segment.bytes_since_index = since
        segment.size_bytes = position
        segment.modified_ms = self._last_now_ms
        self.log_end_offset = items[-1].last_offset + 1
        if changed:
            self._limit()
        if offset_index.tail_count >= TAIL_ENTRIES_MAX:
            segment.store_tails()

    def _cut(self, fd: int, size: int) -> None:
        # Take back a partial write. Where even that fails, the bytes behind `size` are overwritten by the next append
        # or cut by recovery; nobody reads them, because size_bytes has not moved.
        try:
            self.cache.files.truncate(fd, size)
        except OSError as error:
            self._failed(error, f"taking back a failed write to {self.path}")

    def _roll(self, base_offset: int) -> None:
        old = self.segments.active
        if old.base_offset == base_offset:
            return  # nothing is in it yet
        old.seal()
        new = Segment(self.cache, self.path, base_offset, created_ms=self._last_now_ms)
        new.create()
        self.write_snapshot(base_offset)
        self.unsynced = (*self.unsynced, old)
        self.folder_changed = True
        self.segments.add(new)
        new.files()

    def write_snapshot(self, offset: int) -> None:
        """Write the producers' state before `offset` beside the segments, unless it is there. Blocks."""
        if offset > self.snapshot_offset:
            path = file_stem(self.path, offset) + SNAPSHOT_SUFFIX
            self.cache.files.write_synced(path, encode_snapshot(self.producers.entries()))
            self.snapshot_offset = offset

    def _write_leader_epochs_if_possible(self) -> None:
        # The batches are in the log and say it too, so a shortage may leave the checkpoint for the next write.
        try:
            self.write_leader_epochs()
        except OSError as error:
            failure = self._failed(error, f"writing the leader epochs of {self.path}")
            if not failure.shortage:
                self.failure = failure
                raise failure from error

    def load_max_timestamp(self, segment: Segment) -> None:
        """Learn a segment's largest timestamp; where its time index cannot be right, it is made again. Blocks."""
        following = self.segments.after(segment)
        end_offset = self.log_end_offset if following is None else following.base_offset
        if not segment.load_max_timestamp(end_offset):
            self.rebuild_index(segment)

    def rebuild_index(self, segment: Segment) -> None:
        """Make the indexes of a segment again from its batches: they were found to be wrong. Blocks."""
        with self.lock:
            segment_scan.rebuild_segment_indexes(self.cache.files, segment, self.config.index_interval_bytes)
            self._inline_limits = self._nothing_inline()
            if not segment.is_active:
                self.mark_unsynced([segment])

    def write_leader_epochs(self) -> None:
        """Write `leader-epoch-checkpoint`. Blocks; holds the lock."""
        data = checkpoints.encode_leader_epochs(self.leader_epochs.entries)
        self.leader_epochs.changed = False
        try:
            self.cache.files.write_atomically(f"{self.path}/{checkpoints.LEADER_EPOCH}", data)
        except OSError:
            self.leader_epochs.changed = True
            raise

    def _end_transaction(self, segment: Segment, marker: BatchHeader, entry: ProducerEntry | None) -> None:
        assert entry is not None, "a marker has a producer"
        self._markers -= 1
        aborted = self.producers.end_transaction(marker, entry.coordinator_epoch, self._last_now_ms, committed=False)
        if aborted is not None:
            files = self.cache.files
            fd = files.open(segment.stem + TRANSACTION_INDEX_SUFFIX, os.O_WRONLY | os.O_CREAT)
            try:
                files.write_all(fd, aborted.encode(), segment.transaction_bytes)
                files.fsync(fd)
            finally:
                files.close(fd)
            segment.transaction_bytes += len(aborted.encode())
            self.folder_changed = True
