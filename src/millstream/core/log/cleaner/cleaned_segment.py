"""The segment that takes the place of several: written aside as `.cleaned`, with its indexes, and synced.

    <base offset>.log.cleaned, .index.cleaned, .timeindex.cleaned         always
    <base offset>.txnindex.cleaned      where it has entries, or where the segment it replaces has the file: an empty
                                        one then takes that one's place

Index entries are made by the kernel that recovery uses, so they are those that an append would have made. Owned by one
cleaner thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

from millstream.core.log.cleaner.errors import SegmentOverflowError
from millstream.core.log.files import FileSystem
from millstream.core.log.segment import (
    CLEANED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
)
from millstream.core.log.time_index import ENTRY as TIME_ENTRY
from millstream.core.log.transaction_index import AbortedTransaction
from millstream.core.records import (
    STATE_BATCHES,
    STATE_FILE_POSITION,
    STATE_INDEX_BYTES,
    STATE_LAST_TIME_INDEXED,
    STATE_MAX_TIMESTAMP,
    STATE_OFFSET_OF_MAX_TIMESTAMP,
    STATE_POSITION,
    STATE_TIME_INDEX_BYTES,
    StopReason,
    index_batches,
    new_index_state,
    new_rows,
    read_header,
)

INDEX_BYTES: Final = 1 << 14
TIME_INDEX_BYTES: Final = 3 << 13
ROWS: Final = 256
# Indexes hold positions as int32, and Kafka opens no larger file.
SIZE_BYTES_MAX: Final = 2**31 - 1


class IndexBuffers:
    """What one cleaner thread uses again from segment to segment."""

    def __init__(self) -> None:
        self.rows = new_rows(ROWS)
        self.offset_index = bytearray(INDEX_BYTES)
        self.time_index = bytearray(TIME_INDEX_BYTES)


class CleanedSegment:
    """The files of one cleaned segment while they are written."""

    def __init__(
        self,
        files: FileSystem,
        stem: str,
        base_offset: int,
        *,
        index_interval_bytes: int,
        buffers: IndexBuffers,
        on_write: Callable[[int], object],
        size_bytes_max: int = SIZE_BYTES_MAX,
    ) -> None:
        """Make `<stem>.log.cleaned` anew. `on_write(bytes)` is called behind each write and may wait or raise."""
        self._files = files
        self._buffers = buffers
        self._on_write = on_write
        self._size_bytes_max = size_bytes_max
        self._state = new_index_state(base_offset, index_interval_bytes=index_interval_bytes)
        self._offset_index = bytearray()
        self._time_index = bytearray()
        self.stem = stem
        self.base_offset = base_offset
        # Bytes of batches written.
        self.size_bytes = 0
        self.first_timestamp = -1
        # Sizes of the index files once finished; transaction_bytes is -1 where there is no such file.
        self.index_bytes = self.time_index_bytes = 0
        self.transaction_bytes = -1
        discard(files, stem)
        self._fd = files.open(stem + LOG_SUFFIX + CLEANED_SUFFIX, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    @property
    def batch_count(self) -> int:
        return self._state[STATE_BATCHES]

    @property
    def max_timestamp(self) -> int:
        return self._state[STATE_MAX_TIMESTAMP]

    @property
    def max_timestamp_offset(self) -> int:
        return self._state[STATE_OFFSET_OF_MAX_TIMESTAMP] if self.batch_count else self.base_offset

    def append(self, data: memoryview) -> None:
        """Write whole batches behind what there is. Raises SegmentOverflowError before a byte too many."""
        if not data:
            return
        if self.size_bytes + len(data) > self._size_bytes_max:
            raise SegmentOverflowError(f"{self.stem}: {self.size_bytes} + {len(data)} bytes")
        if not self.size_bytes:
            self.first_timestamp = read_header(data).max_timestamp
        self._files.write_all(self._fd, data, self.size_bytes)
        # Else the sync at the end has everything to do at once, and appends to other logs of the disk wait for it.
        self._files.start_writeback(self._fd, self.size_bytes, len(data))
        state, buffers = self._state, self._buffers
        state[STATE_FILE_POSITION], state[STATE_POSITION] = self.size_bytes, 0
        reason = StopReason.ROWS_FULL
        while reason is StopReason.ROWS_FULL:
            reason = StopReason(
                index_batches(data, state, buffers.offset_index, buffers.time_index, buffers.rows, False)
            )
            self._offset_index += memoryview(buffers.offset_index)[: state[STATE_INDEX_BYTES]]
            self._time_index += memoryview(buffers.time_index)[: state[STATE_TIME_INDEX_BYTES]]
        assert reason is StopReason.END, f"{self.stem}: what was just written is wrong: {reason.name}"
        self.size_bytes += len(data)
        self._on_write(len(data))

    def finish(self, aborted: Iterable[AbortedTransaction], *, replaces_transaction_index: bool) -> None:
        """Write the indexes and sync everything."""
        state = self._state
        if state[STATE_MAX_TIMESTAMP] > state[STATE_LAST_TIME_INDEXED]:
            self._time_index += TIME_ENTRY.pack(
                state[STATE_MAX_TIMESTAMP], state[STATE_OFFSET_OF_MAX_TIMESTAMP] - self.base_offset
            )
        transactions = b"".join(each.encode() for each in aborted)
        self._files.fsync(self._fd)
        self.close()
        self._files.write_synced(self.stem + INDEX_SUFFIX + CLEANED_SUFFIX, self._offset_index)
        self._files.write_synced(self.stem + TIME_INDEX_SUFFIX + CLEANED_SUFFIX, self._time_index)
        self.index_bytes, self.time_index_bytes = len(self._offset_index), len(self._time_index)
        if transactions or replaces_transaction_index:
            self._files.write_synced(self.stem + TRANSACTION_INDEX_SUFFIX + CLEANED_SUFFIX, transactions)
            self.transaction_bytes = len(transactions)
        self._on_write(self.index_bytes + self.time_index_bytes)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._files.close(fd)


def discard(files: FileSystem, stem: str) -> None:
    """Remove what a cleaning that was given up has left."""
    for suffix in SEGMENT_SUFFIXES:
        if files.exists(stem + suffix + CLEANED_SUFFIX):
            files.unlink(stem + suffix + CLEANED_SUFFIX)
