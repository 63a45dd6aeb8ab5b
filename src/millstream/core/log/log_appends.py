"""Appending to a log in two steps: `reserve` on the event loop, `write` inline or on a thread; and rolling.

The loop queues, the writer takes the queue as a whole and puts it into the active segment with one system call. What
can go wrong while writing is taken back as a whole too (`forget_reserved`).
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from millstream.core.log import transactions
from millstream.core.log.errors import LogDirectoryError
from millstream.core.log.files import Buffer
from millstream.core.log.log_state import LogState, PendingBatch
from millstream.core.log.offset_index import TAIL_ENTRIES_MAX
from millstream.core.log.producer_state import ProducerEntry
from millstream.core.log.rolling import RollLimits, roll_limits
from millstream.core.log.segment import Segment
from millstream.core.records import BatchHeader, set_log_fields
from millstream.core.wire import ErrorCode, KafkaError

# Linux takes at most this many buffers in one call (IOV_MAX).
BUFFERS_MAX: Final = 1024
# On a full disk the indexes of an active segment are tried again as often as this: each time it is read whole.
INDEX_RETRY_MS: Final = 1000


class Reservation(NamedTuple):
    """Where a reserved batch will stand; `duplicate` says that it already stands there, or is pending, from before.

    A duplicate is acknowledged like any other: not before log_end_offset has passed last_offset.
    """

    first_offset: int
    last_offset: int
    log_append_time_ms: int  # -1 unless the topic stamps LogAppendTime
    log_start_offset: int
    duplicate: bool = False


class LogAppends(LogState):
    """The writing half of a log; see the module's text."""

    __slots__ = ()

    # On the event loop.

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
            stamp = now_ms if self.config.log_append_time else None
            entry = self.producers.reserve(header, first_offset, now_ms, timestamp=stamp)
        data = batch if not copy and not isinstance(batch, bytes) else bytearray(batch)
        if self.config.log_append_time:
            set_log_fields(data, first_offset, leader_epoch, log_append_time_ms=now_ms)
            timestamp = append_time_ms = now_ms
        else:
            set_log_fields(data, first_offset, leader_epoch, max_timestamp=header.max_timestamp)
            timestamp, append_time_ms = header.max_timestamp, -1
        self._pending.append(PendingBatch(data, first_offset, last_offset, timestamp, leader_epoch, entry))
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
            self.forbid_inline()
            self.generation += 1
            self.failure = self.retired

    # Inline or on the directory's writer thread.

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
                if self.recovery_point_is_ahead:
                    self.directory.checkpoints.follow_truncations()
                    self.recovery_point_is_ahead = False
                segment = self.segments.active
                if not segment.is_prepared:
                    self.prepare(segment)
                size = sum([len(item.data) for item in items])
                timestamp = max([item.timestamp for item in items])
                if self._roll_due(segment.size_bytes + size, items[-1].last_offset + 1, timestamp):
                    self._write_rolling(items)
                else:
                    self._append(segment, items, size)
            except OSError as error:
                self.failure = self.failed(error, f"appending to {self.path}")
                raise self.failure from error
            if self.leader_epochs.changed:
                self.write_leader_epochs_if_possible()
            return self.log_end_offset

    def roll(self) -> None:
        """Seal the active segment and start a new one at log_end_offset. Blocks."""
        with self.lock:
            try:
                self._roll(self.log_end_offset)
            except OSError as error:
                raise self.failed(error, f"rolling {self.path}") from error

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
        self._pending.append(PendingBatch(batch, offset, offset, now_ms, leader_epoch, ended, marker))
        self.reserved_end_offset = offset + 1
        self._reserved_bytes += len(batch)
        self._reserved_epoch = leader_epoch
        self._reserved_timestamp = max(self._reserved_timestamp, now_ms)
        self._last_now_ms = now_ms
        self._markers += 1
        return Reservation(offset, offset, -1, self.log_start_offset)

    # Helpers.

    def _released(self) -> bool:
        self.lock.release()
        return True

    def prepare(self, segment: Segment) -> None:
        """Learn what appending to the active segment needs to know, its indexes included. Blocks."""
        if segment.index_is_lost:
            if self._last_now_ms >= self._index_due_ms:
                self._index_due_ms = self._last_now_ms + INDEX_RETRY_MS
                self.rebuild_index(segment)
            if segment.index_is_lost:
                raise OSError(errno.ENOSPC, "there is no room for its index")
        self.load_max_timestamp(segment)
        segment.prepare_append()
        self._limit()

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

    def _write_rolling(self, items: list[PendingBatch]) -> None:
        run: list[PendingBatch] = []
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

    def _append(self, segment: Segment, items: list[PendingBatch], size: int) -> None:
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
            self.failed(error, f"taking back a failed write to {self.path}")

    def _roll(self, base_offset: int) -> None:
        old = self.segments.active
        if old.base_offset == base_offset:
            return  # nothing is in it yet
        # What may fail comes first: until the old one is sealed nothing has changed, and the roll is tried again.
        new = Segment(self.cache, self.path, base_offset, created_ms=self._last_now_ms)
        new.create()
        self.write_snapshot(base_offset)
        old.seal()
        self.unsynced = (*self.unsynced, old)
        self.folder_changed = True
        self.segments.add(new)
        new.files()

    def write_leader_epochs_if_possible(self) -> None:
        """Write the changed leader epochs, with the next write if the disk has no room now. Blocks."""
        # The batches are in the log and say it too, so a shortage may leave the checkpoint for the next write.
        try:
            self.write_leader_epochs()
        except OSError as error:
            failure = self.failed(error, f"writing the leader epochs of {self.path}")
            if not failure.shortage:
                self.failure = failure
                raise failure from error

    def _end_transaction(self, segment: Segment, marker: BatchHeader, entry: ProducerEntry | None) -> None:
        assert entry is not None, "a marker has a producer"
        self._markers -= 1
        aborted = self.producers.end_transaction(marker, entry.coordinator_epoch, self._last_now_ms, committed=False)
        if aborted is None:
            return
        try:
            transactions.append_to_index(self.cache.files, segment, aborted)
        except OSError as error:
            # The marker stands in the log already. Without the index, readers would be given what was aborted.
            doing = f"writing the transaction index of {self.path}"
            self.failure = self.directory.failed(error, doing, always_offline=True)
            raise self.failure from error
        self.folder_changed = True
