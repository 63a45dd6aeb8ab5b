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

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from millstream.core.log import retention, timestamps, transactions, truncation
from millstream.core.log.errors import OffsetOutOfRangeError, SegmentReplacedError
from millstream.core.log.log_appends import LogAppends
from millstream.core.log.log_reader import LogRead
from millstream.core.log.producer_state import ProducerEntry
from millstream.core.log.segment import (
    UNKNOWN_TIMESTAMP,
    Segment,
)

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.file_region import ReadBuffer
    from millstream.core.log.retention import DeletedSegment
    from millstream.core.log.timestamps import TimestampOffset
    from millstream.core.log.transaction_index import AbortedTransaction


T = TypeVar("T")


class Log(LogAppends):
    """One partition on disk; see the module's text."""

    __slots__ = ()

    def flush(self) -> int:
        """Make everything written durable; return the new flushed_offset. Blocks, but not those who append.

        Raises LogDirectoryError. After a failed sync the directory is offline: the system may have dropped the
        pages, so that trying again would only seem to succeed.
        """
        with self.lock:
            generation = self.generation
            end_offset = self.log_end_offset
            sealed = self.unsynced
            folder_changed, created = self.folder_changed, self.created
            if end_offset <= self.flushed_offset and not sealed:
                return self.flushed_offset
            active = self.segments.active
        files = self.cache.files
        try:
            for segment in sealed:
                self._sync(segment)
            if active.size_bytes and end_offset > active.base_offset:
                self._sync(active)
            if folder_changed:
                files.sync_directory(self.path)
            if created:
                self.write_partition_metadata()
                files.sync_directory(self.directory.path)
        except OSError as error:
            raise self.failed(error, f"syncing {self.path}", always_offline=True) from error
        with self.lock:
            self.unsynced = tuple(segment for segment in self.unsynced if segment not in sealed)
            if created:
                self.created = False
            if folder_changed and not self.unsynced:
                self.folder_changed = False
            if generation == self.generation:
                self.flushed_offset = max(self.flushed_offset, end_offset)
                return self.flushed_offset
        return self.flush()  # offsets were taken back meanwhile and may have been given to other batches

    def _sync(self, segment: Segment) -> None:
        # A sealed one with its indexes; those of the active one are made again after a crash.
        files = self.cache.files
        try:
            opened = segment.files()
            if segment.is_active:
                files.fdatasync(opened.log_fd)
                return
            files.fsync(opened.log_fd)
            if segment.index_is_lost:
                return
            files.fsync(opened.index_fd())
            files.fsync(opened.time_index_fd())
        except FileNotFoundError:
            if self.holds(segment):
                raise  # else retention or a truncation let go of it, and there is nothing to sync

    # Reading.

    def read(
        self,
        offset: int,
        size_bytes_max: int,
        *,
        end_offset: int | None = None,
        at_least_one: bool = True,
        wait: bool = True,
        buffer: ReadBuffer | None = None,
    ) -> LogRead:
        """Read whole, CRC-checked batches from the one that holds `offset` on, at most `size_bytes_max` bytes of them.

        Only batches that end before `end_offset` (default: what is written). With `at_least_one` the first batch is
        given even where it alone is larger. With `buffer` the data is good until the next read into it; where it is
        large the result has a `region`, which stays. `wait` false never waits for the disk and raises BlockingIOError
        instead: come again on a thread. Raises OffsetOutOfRangeError, CorruptBatchError (whose next_offset steps
        over), LogDirectoryError.
        """
        log_end_offset = self.log_end_offset
        if not self.log_start_offset <= offset <= log_end_offset:
            raise OffsetOutOfRangeError(offset, self.log_start_offset, log_end_offset)
        if end_offset is None or end_offset > log_end_offset:
            end_offset = log_end_offset
        if offset >= end_offset:
            return LogRead(memoryview(b""), offset, offset)
        segments = self.segments.items
        try:
            return self._reader.read(
                offset, size_bytes_max, end_offset, at_least_one=at_least_one, wait=wait, buffer=buffer
            )
        except BlockingIOError:
            raise
        except OSError as error:
            if not wait:
                raise BlockingIOError(f"{self.path}: {error}") from error
            with self.lock:  # whoever deletes, replaces or cuts what we read has finished
                has_changed = self.segments.items is not segments or isinstance(error, SegmentReplacedError)
            if has_changed and self.retired is None:
                return self.read(
                    offset, size_bytes_max, end_offset=end_offset, at_least_one=at_least_one, wait=True, buffer=buffer
                )
            raise self.failed(error, f"reading {self.path}") from error

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """Return (epoch, end offset) as OffsetForLeaderEpoch answers them; (-1, -1) where nothing is known."""
        return self.leader_epochs.end_offset_for(epoch, self.log_end_offset)

    def offset_for_timestamp(self, timestamp: int) -> TimestampOffset | None:
        """Return the first record at or after `timestamp`, None where there is none. Blocks."""
        return self._look("looking up a timestamp in", lambda: timestamps.offset_for_timestamp(self, timestamp))

    def max_timestamp_offset(self) -> TimestampOffset | None:
        """Return the first record with the largest timestamp, None in an empty log. Blocks."""
        return self._look("looking up the largest timestamp of", lambda: timestamps.max_timestamp_offset(self))

    def _look(self, doing: str, look: Callable[[], T]) -> T:
        # Once more where segments went, or were cleaned, under the look.
        while True:
            segments = self.segments.items
            try:
                found = look()
            except OSError as error:
                with self.lock:
                    has_changed = self.segments.items is not segments and self.retired is None
                if not has_changed or not isinstance(error, FileNotFoundError):
                    raise self.failed(error, f"{doing} {self.path}") from error
            else:
                still_there = self.segments.items[: len(segments)] == segments
                if found is not None or still_there or self.retired is not None:
                    return found

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
        with self.lock, self.storage_errors("moving the start of"):
            if offset > self.log_end_offset:
                raise OffsetOutOfRangeError(offset, self.log_start_offset, self.log_end_offset)
            if offset <= self.log_start_offset:
                return False
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
        return self._look(
            "reading the transaction indexes of",
            lambda: transactions.aborted_transactions(self, start_offset, end_offset),
        )

    @property
    def has_aborted_transactions(self) -> bool:
        """Whether `aborted_transactions` could return any; no I/O, so that the loop can tell."""
        return any(segment.transaction_bytes for segment in self.segments)

    # Closing.

    def close(self) -> None:
        """Write out indexes and the producers' state, sync everything, and let go of the files. Blocks.

        Afterwards flushed_offset is log_end_offset, and a clean start needs to read no record.
        """
        with self.lock, self.storage_errors("closing"):
            self.retire("the log is closed")
            active = self.segments.active
            # Whether its files happen to be open says nothing: their place may have been needed since the last append.
            if active.is_active and active.size_bytes and active.max_timestamp != UNKNOWN_TIMESTAMP:
                assert active.time_index is not None, f"{active.stem} is active"
                if not active.is_prepared:
                    self.prepare(active)
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
        """Write index entries that wait in memory, so that an idle log holds none, and indexes that found no room.

        Blocks for small writes.
        """
        with self.lock, self.storage_errors("writing the indexes of"):
            if self.retired is None:
                for segment in self.segments:
                    if segment.index_is_lost:
                        self.rebuild_index(segment)
                self.segments.active.store_tails()

    def relocate(self, directory: LogDirectory, path: str, segments: Sequence[Segment]) -> None:
        """Go on in another folder, of `directory`, that holds all of this log and is synced; under the lock.

        What is reserved and who waits for it stay. Whoever reads from the old files reads on; who would open one is
        told to look again (SegmentReplacedError).
        """
        with self.lock:
            for segment in self.segments:
                self.cache.replace(segment)
            self.segments.replace(segments)
            self.directory, self.path = directory, path
            self.flushed_offset = self.log_end_offset
            self.unsynced = ()
            self.folder_changed = self.created = False
            self.reader.forget_positions()
            self.forbid_inline()

    def rename(self, path: str, why: str) -> None:
        """Move the log's folder to `path` (in the same log directory), where nobody serves it any more. Blocks.

        Nothing is written any more, and whoever still works on the log is answered an error that says `why` and leaves
        the directory online: the folder may go at any time.
        """
        with self.lock:
            self.retire(why)
            try:
                self.cache.files.rename(self.path, path)
                self.cache.files.sync_directory(self.directory.path)
            except OSError as error:
                raise self.directory.failed(error, f"renaming {self.path}") from error
            self.path = path
            for segment in self.segments:
                segment.move(path)
