"""One cleaning of one log: the dirty part's keys are noted, then all segments before its end are written anew.

1. **Note.** The dirty segments are walked and the newest offset of each key put into the offset map, until it is full
   (`offset_map` says of which keys then): what lies behind is left to the next cleaning. Aborted records count for
   nothing.
2. **Copy.** Segments from the log's start to the end of what was noted are copied, in groups that fit one segment. A
   record stays if it is the newest of its key, behind what was noted, or not of the keys that were; a tombstone stays
   until its delete horizon, which it gets when it is first seen here (KIP-534). Records without a key go.
3. **Swap.** Each group's copy takes its place (`swap`) before the next one is begun, in the log's order: so a tombstone
   never goes before what it deletes. A group whose copy would not fit one segment after all is halved.
4. All that again for the keys that had no room, if there are any. Only then the log counts as clean so far.

An idempotent producer's last batch stays, were it empty, since it says the producer's sequence; so does the last batch
of each group, since it says where the group ended. Markers: see `transactions`. Offsets never change.

Runs on a cleaner thread and blocks. The kernels work on a whole buffer without the interpreter's lock; what Python does
in between concerns up to ROWS_MAX batches with a transaction, or one compressed one.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from millstream.core._kernels.compaction import filter_batches
from millstream.core.log import transactions
from millstream.core.log.cleaner.batch_opener import BatchOpener
from millstream.core.log.cleaner.cleaned_segment import SIZE_BYTES_MAX, CleanedSegment, IndexBuffers, discard
from millstream.core.log.cleaner.errors import CleaningAbortedError, SegmentOverflowError, UncleanableError
from millstream.core.log.cleaner.offset_map import OffsetMap
from millstream.core.log.cleaner.plan import LogToClean, group_segments
from millstream.core.log.cleaner.segment_walk import ROWS_MAX, Batches, ReadBuffer, walk_segment
from millstream.core.log.cleaner.swap import check_unchanged, replace_segments
from millstream.core.log.cleaner.transactions import CleanedTransactions
from millstream.core.log.producer_rebuild import read_marker
from millstream.core.log.segment import LOG_SUFFIX, Segment, file_stem
from millstream.core.records import (
    ROW_ATTRIBUTES,
    ROW_BASE_OFFSET,
    ROW_BASE_TIMESTAMP,
    ROW_COUNT,
    ROW_LAST_OFFSET,
    ROW_POSITION,
    ROW_PRODUCER_EPOCH,
    ROW_PRODUCER_ID,
    ROW_SIZE_BYTES,
    ROW_WIDTH,
    StopReason,
)
from millstream.core.records.header import CONTROL_BIT, DELETE_HORIZON_BIT, TRANSACTIONAL_BIT

if TYPE_CHECKING:
    from millstream.core.log.log import Log
    from millstream.core.log.retention import DeletedSegment

DISCARD, CONTROL, KEEP, MARKER = 1, 2, 4, 8  # actions; see `_kernels.compaction`
_SPECIAL: Final = CONTROL_BIT | TRANSACTIONAL_BIT
_INT64_MAX: Final = 2**63 - 1

_logger = logging.getLogger(__name__)


class Tools:
    """What one cleaner thread uses again from log to log, bounded by log.cleaner.*."""

    def __init__(
        self,
        *,
        map_bytes: int,
        load_factor: float,
        io_buffer_bytes: int,
        secret: bytes,
        segment_bytes_max: int = SIZE_BYTES_MAX,
    ) -> None:
        """Half of `io_buffer_bytes` is for reading, half for writing. No segment grows over `segment_bytes_max`."""
        self.segment_bytes_max = segment_bytes_max
        self.offsets = OffsetMap(map_bytes, load_factor=load_factor, secret=secret)
        self.read_buffer = ReadBuffer(max(io_buffer_bytes // 2, 4096))
        self._out_bytes = max(io_buffer_bytes // 2, 4096)
        self.out = bytearray(self._out_bytes)
        self.index_buffers = IndexBuffers()
        self.opener = BatchOpener(self.offsets)

    def shrink(self) -> None:
        """Give back what large batches took."""
        self.read_buffer.shrink()
        self.opener.shrink()
        if len(self.out) > self._out_bytes:
            self.out = bytearray(self._out_bytes)


@dataclass(slots=True)
class CleaningStats:
    """What one cleaning did."""

    end_offset: int = 0
    map_utilization: float = 0.0
    # All that was read to note keys, read to be copied, and written.
    bytes_noted: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    # What was copied first, what was written last, and the records in that.
    size_before: int = 0
    size_after: int = 0
    records_retained: int = 0
    records_dropped: int = 0
    records_keyless: int = 0


class LogCleaning:
    """One cleaning; `clean` is called once."""

    def __init__(
        self,
        log: Log,
        tools: Tools,
        *,
        now_ms: int,
        on_io: Callable[[int], object],
        on_deleted: Callable[[Sequence[DeletedSegment]], object],
    ) -> None:
        """`on_io(bytes)` is called behind each read and write: it may wait, or raise CleaningAbortedError.

        `on_deleted` takes over the files of segments that were replaced.
        """
        self._log = log
        self._files = log.cache.files
        self._tools = tools
        self._offsets = tools.offsets
        self._now_ms = now_ms
        self._new_horizon = min(now_ms + log.config.delete_retention_ms, _INT64_MAX)
        self._on_io = on_io
        self._on_deleted = on_deleted
        self._no_actions = bytearray(ROWS_MAX)
        self._found = array("q", bytes(8 * 7))
        self._out_position = 0
        # Last data offsets of producers that the log knows, and the epochs of those that have none.
        self._kept = array("q")
        self._kept_set: frozenset[int] = frozenset()
        self._epochs: dict[int, int] = {}
        self.stats = CleaningStats()

    def clean(self, found: LogToClean) -> int:
        """Clean the log up to some offset at or before first_uncleanable_offset; return that.

        Raises CleaningAbortedError and UncleanableError: groups that were done stay done, the rest is untouched.
        OSErrors as the system says.
        """
        self._offsets.begin(*self._dirty(found))
        end_offset = self._clean_noted(found)
        while self._offsets.begin_next_slices(*self._dirty(found)):
            end_offset = min(self._clean_noted(found), end_offset)
        self.stats.end_offset = end_offset
        return end_offset

    def _clean_noted(self, found: LogToClean) -> int:
        # Once through the log, for the keys of the slices that the map is for.
        log, stats = self._log, self.stats
        segments = [each for each in log.segments.items if each.base_offset < found.first_uncleanable_offset]
        if not segments:
            raise CleaningAbortedError(f"{log.path}: its segments have gone")
        old = [(segment, segment.size_bytes) for segment in segments]
        try:
            self._note(segments, found.first_dirty_offset, found.first_uncleanable_offset)
        except (UncleanableError, OSError):
            check_unchanged(log, old)  # else it may have gone, or been cut, under the walk
            raise
        end_offset = self._offsets.latest_offset + 1
        read, written = stats.bytes_read, stats.bytes_written
        stats.records_retained = 0
        stats.map_utilization = max(stats.map_utilization, self._offsets.utilization)
        self._know_producers(found.first_uncleanable_offset)
        touched = [each for each in segments if each.base_offset < end_offset]
        aborted = self._aborted(touched[0].base_offset, found.first_uncleanable_offset)
        groups = deque(
            group_segments(
                touched,
                self._end_of(segments, touched[-1], found),
                segment_bytes=log.config.segment_bytes,
                index_bytes=log.config.segment_index_bytes,
            )
        )
        while groups:
            group = groups.popleft()
            before = aborted.copy()
            try:
                self._clean_group(group, aborted)
            except SegmentOverflowError as error:
                if len(group) == 1:
                    why = f"grows over {self._tools.segment_bytes_max} bytes as it is cleaned"
                    raise UncleanableError(self._path(group[0]), 0, group[0].base_offset, why) from error
                aborted, middle = before, len(group) // 2
                groups.extendleft((group[middle:], group[:middle]))
        stats.size_before = stats.size_before or stats.bytes_read - read
        stats.size_after = stats.bytes_written - written
        return end_offset

    @staticmethod
    def _dirty(found: LogToClean) -> tuple[int, int]:
        # Where the dirty part begins, and how many records it has at most.
        return found.first_dirty_offset, found.first_uncleanable_offset - found.first_dirty_offset

    # Noting.

    def _note(self, segments: Sequence[Segment], first_dirty: int, end_offset: int) -> None:
        offsets = self._offsets
        ends = [segment.base_offset for segment in segments[1:]] + [end_offset]
        dirty = [(each, end) for each, end in zip(segments, ends, strict=True) if end > first_dirty]
        aborted = self._aborted(dirty[0][0].base_offset, end_offset)
        for segment, end in dirty:
            if not self._note_segment(segment, aborted):
                return
            offsets.latest_offset = max(end - 1, offsets.latest_offset)

    def _note_segment(self, segment: Segment, aborted: CleanedTransactions) -> bool:
        # False when the map is full.
        for batches in walk_segment(self._files, segment, self._tools.read_buffer, self._count_noted):
            actions = self._actions(batches, aborted)
            row = 0
            while row < batches.count:
                row, reason = self._offsets.note_batches(batches.data, batches.rows, row, batches.count, actions)
                if reason is StopReason.COMPRESSED:
                    reason = self._tools.opener.note(self._batch(batches, row), self._path(segment))
                    row += reason is StopReason.END
                if reason is StopReason.TABLE_FULL and not self._offsets.make_room():
                    return False
                if reason is StopReason.BAD_RECORD:
                    raise self._bad_record(segment, batches, row)
        return True

    # Copying.

    def _clean_group(self, group: Sequence[Segment], aborted: CleanedTransactions) -> None:
        log = self._log
        old = [(segment, segment.size_bytes) for segment in group]
        if not any(size for _, size in old):
            return
        stem = file_stem(log.path, group[0].base_offset)
        cleaned = None
        try:
            cleaned = CleanedSegment(
                self._files,
                stem,
                group[0].base_offset,
                index_interval_bytes=log.config.index_interval_bytes,
                buffers=self._tools.index_buffers,
                on_write=self._count_written,
                size_bytes_max=self._tools.segment_bytes_max,
            )
            last = [segment for segment, size in old if size][-1]
            for segment in group:
                self._copy_segment(segment, cleaned, aborted, is_last=segment is last)
            self._flush(cleaned)
            cleaned.finish(aborted.take_kept(), replaces_transaction_index=group[0].transaction_bytes > 0)
            deleted = replace_segments(log, old, cleaned, self._now_ms)
        except BaseException:
            self._give_up(cleaned, old)
            raise
        self._on_deleted(deleted)

    def _give_up(self, cleaned: CleanedSegment | None, old: Sequence[tuple[Segment, int]]) -> None:
        # What is left of the copy goes at the next cleaning or start, where it cannot go now.
        self._out_position = 0
        if cleaned is not None:
            try:
                cleaned.close()
                if self._log.directory.offline_reason is None:
                    discard(self._files, cleaned.stem)
            except OSError as error:
                _logger.warning("%s: what a cleaning left could not be removed: %s", cleaned.stem, error)
        check_unchanged(self._log, old)

    def _copy_segment(
        self, segment: Segment, cleaned: CleanedSegment, aborted: CleanedTransactions, *, is_last: bool
    ) -> None:
        for batches in walk_segment(self._files, segment, self._tools.read_buffer, self._count_read):
            actions = self._actions(batches, aborted, copying=True)
            if is_last and self._ends(batches, segment):
                actions = bytearray(actions)
                actions[batches.count - 1] |= KEEP
            row = 0
            while row < batches.count:
                row = self._copy_batches(segment, cleaned, batches, row, actions)

    def _copy_batches(
        self, segment: Segment, cleaned: CleanedSegment, batches: Batches, row: int, actions: bytearray
    ) -> int:
        tools, found = self._tools, self._found
        found[0] = found[1] = found[2] = 0
        row, self._out_position, number = filter_batches(
            batches.data,
            batches.rows,
            row,
            batches.count,
            actions,
            self._kept,
            self._now_ms,
            self._new_horizon,
            self._offsets.table,
            self._offsets.state,
            tools.out,
            self._out_position,
            found,
        )
        self._count_records(found)
        reason = StopReason(number)
        if reason is StopReason.ROWS_FULL:
            needed = found[6]
            self._flush(cleaned)
            if needed > len(tools.out):
                tools.out = bytearray(needed)
        elif reason is StopReason.COMPRESSED:
            last_offset = batches.rows[row * ROW_WIDTH + ROW_LAST_OFFSET]
            batch = tools.opener.filter(
                self._batch(batches, row),
                self._path(segment),
                keep=bool(actions[row] & KEEP) or last_offset in self._kept_set,
                now_ms=self._now_ms,
                new_horizon=self._new_horizon,
                found=found,
            )
            self._count_records(found)
            self._flush(cleaned)
            cleaned.append(memoryview(batch))
            row += 1
        elif reason is StopReason.BAD_RECORD:
            raise self._bad_record(segment, batches, row)
        return row

    def _flush(self, cleaned: CleanedSegment) -> None:
        end, self._out_position = self._out_position, 0
        cleaned.append(memoryview(self._tools.out)[:end])

    # What is special about batches.

    def _actions(self, batches: Batches, aborted: CleanedTransactions, *, copying: bool = False) -> bytearray:
        rows, end = batches.rows, batches.count * ROW_WIDTH
        attributes = rows[ROW_ATTRIBUTES:end:ROW_WIDTH]
        if not any(each & _SPECIAL for each in set(attributes)):
            return self._no_actions
        actions = bytearray(batches.count)
        for index, bits in enumerate(attributes):
            if bits & CONTROL_BIT:
                actions[index] = self._marker_action(batches, index, bits, aborted, copying=copying)
            elif bits & TRANSACTIONAL_BIT:
                row = index * ROW_WIDTH
                if aborted.see_batch(rows[row + ROW_PRODUCER_ID], rows[row + ROW_LAST_OFFSET]):
                    actions[index] = DISCARD
        return actions

    def _marker_action(
        self, batches: Batches, index: int, bits: int, aborted: CleanedTransactions, *, copying: bool
    ) -> int:
        rows, row = batches.rows, index * ROW_WIDTH
        producer_id = rows[row + ROW_PRODUCER_ID]
        marker = read_marker(self._batch(batches, index)) if rows[row + ROW_COUNT] else None
        is_free = marker is not None and aborted.see_marker(
            producer_id, rows[row + ROW_LAST_OFFSET], committed=marker[0]
        )
        action = CONTROL
        if copying and self._epochs.get(producer_id) == rows[row + ROW_PRODUCER_EPOCH]:
            action |= KEEP
        if is_free:
            if not bits & DELETE_HORIZON_BIT:
                action |= MARKER
            elif rows[row + ROW_BASE_TIMESTAMP] <= self._now_ms:
                action |= DISCARD
        return action

    def _know_producers(self, end_offset: int) -> None:
        with self._log.lock:
            entries = self._log.active_producers()
        last_offsets = [each.batches[-1].last_offset for each in entries if each.batches]
        self._kept_set = frozenset(each for each in last_offsets if each < end_offset)
        self._kept = array("q", sorted(self._kept_set))
        self._epochs = {each.producer_id: each.epoch for each in entries if not each.batches}

    def _aborted(self, start_offset: int, end_offset: int) -> CleanedTransactions:
        if not self._log.has_aborted_transactions:
            return CleanedTransactions(())
        return CleanedTransactions(transactions.aborted_transactions(self._log, start_offset, end_offset))

    # Helpers.

    @staticmethod
    def _batch(batches: Batches, index: int) -> memoryview:
        position = batches.rows[index * ROW_WIDTH + ROW_POSITION]
        return batches.data[position : position + batches.rows[index * ROW_WIDTH + ROW_SIZE_BYTES]]

    @staticmethod
    def _ends(batches: Batches, segment: Segment) -> bool:
        row = (batches.count - 1) * ROW_WIDTH
        end = batches.file_position + batches.rows[row + ROW_POSITION] + batches.rows[row + ROW_SIZE_BYTES]
        return end == segment.size_bytes

    @staticmethod
    def _path(segment: Segment) -> str:
        return segment.stem + LOG_SUFFIX

    @staticmethod
    def _end_of(segments: Sequence[Segment], last: Segment, found: LogToClean) -> int:
        behind = [each.base_offset for each in segments if each.base_offset > last.base_offset]
        return behind[0] if behind else found.first_uncleanable_offset

    def _bad_record(self, segment: Segment, batches: Batches, index: int) -> UncleanableError:
        row = index * ROW_WIDTH
        return UncleanableError(
            self._path(segment),
            batches.file_position + batches.rows[row + ROW_POSITION],
            batches.rows[row + ROW_BASE_OFFSET],
            "holds a record that is none, although its CRC is right",
        )

    def _count_noted(self, size_bytes: int) -> None:
        self.stats.bytes_noted += size_bytes
        self._on_io(size_bytes)

    def _count_read(self, size_bytes: int) -> None:
        self.stats.bytes_read += size_bytes
        self._on_io(size_bytes)

    def _count_written(self, size_bytes: int) -> None:
        self.stats.bytes_written += size_bytes
        self._on_io(size_bytes)

    def _count_records(self, found: array[int]) -> None:
        self.stats.records_retained += found[0]
        self.stats.records_dropped += found[1]
        self.stats.records_keyless += found[2]
