"""One segment of a log: a `.log` file of batches from a base offset on, and the indexes beside it.

    <base offset, 20 digits>.log         whole batches, back to back
    <base offset>.index, .timeindex      sparse indexes (`offset_index`, `time_index`)
    <base offset>.txnindex               aborted transactions that end here, where there are any
    <base offset>.snapshot               the producers' state before the base offset (`producer_state`)

The last segment of a log is active: it takes appends, and the newest entries of its indexes are in memory. The others
are sealed and never change. A Segment is a small record; its files are open only while in use (`open_segments`).
"""

from __future__ import annotations

import os
from typing import Final

from millstream.core.log.offset_index import ENTRY_SIZE as OFFSET_ENTRY_SIZE
from millstream.core.log.offset_index import OffsetIndex
from millstream.core.log.open_segments import OpenSegment, OpenSegments
from millstream.core.log.time_index import ENTRY as TIME_ENTRY
from millstream.core.log.time_index import ENTRY_SIZE as TIME_ENTRY_SIZE
from millstream.core.log.time_index import TimeIndex
from millstream.core.records import HEADER_SIZE, read_header

LOG_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"
TIME_INDEX_SUFFIX: Final = ".timeindex"
TRANSACTION_INDEX_SUFFIX: Final = ".txnindex"
SNAPSHOT_SUFFIX: Final = ".snapshot"
DELETED_SUFFIX: Final = ".deleted"
CLEANED_SUFFIX: Final = ".cleaned"
SWAP_SUFFIX: Final = ".swap"
SEGMENT_SUFFIXES: Final = (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TRANSACTION_INDEX_SUFFIX)
NO_TIMESTAMP: Final = -1
UNKNOWN_TIMESTAMP: Final = -2


_DIGITS: Final = 20


def file_name(offset: int, suffix: str) -> str:
    """Return the name of a file that is named by an offset."""
    return f"{offset:0{_DIGITS}d}{suffix}"


def file_stem(folder: str, offset: int) -> str:
    """Return the path, without suffix, of the files named by `offset`."""
    return f"{folder}/{file_name(offset, '')}"


def base_offset_of(name: str) -> int | None:
    """Return the offset that a file is named by, None where it is not."""
    digits = name[:_DIGITS]
    return int(digits) if len(digits) == _DIGITS and digits.isascii() and digits.isdigit() else None


class Segment:
    """One segment; see the module's text."""

    __slots__ = (
        "_cache",
        "_folder",
        "base_offset",
        "bytes_since_index",
        "created_ms",
        "first_timestamp",
        "index_bytes",
        "index_is_lost",
        "max_timestamp",
        "max_timestamp_offset",
        "modified_ms",
        "offset_index",
        "opened",
        "replaced",
        "size_bytes",
        "time_index",
        "time_index_bytes",
        "transaction_bytes",
    )

    def __init__(self, cache: OpenSegments, folder: str, base_offset: int, *, created_ms: int) -> None:
        self._cache = cache
        self._folder = folder
        self.base_offset = base_offset
        # Bytes of whole batches in the `.log` file; moves when a write has ended, so readers never see part of one.
        self.size_bytes = 0
        # Sizes of the index files when the segment was found or sealed.
        self.index_bytes = 0
        self.time_index_bytes = 0
        self.transaction_bytes = 0
        # Whether there was no room to write the indexes: they are empty, and it is tried again before they are needed.
        self.index_is_lost = False
        # Largest timestamp and the last offset of its batch. UNKNOWN_TIMESTAMP until read from the time index.
        self.max_timestamp = NO_TIMESTAMP
        self.max_timestamp_offset = base_offset
        # Timestamp of the first batch, from which segment.ms counts. UNKNOWN_TIMESTAMP until read.
        self.first_timestamp = UNKNOWN_TIMESTAMP
        self.created_ms = created_ms
        self.modified_ms = created_ms
        # Log bytes since the last index entry's batch began.
        self.bytes_since_index = 0
        # The open files, None while closed. Set by OpenSegments only.
        self.opened: OpenSegment | None = None
        # Whether a cleaned segment has taken its place: its names are another's now, and none is opened any more.
        self.replaced = False
        # The indexes while the segment is active, None once sealed.
        self.offset_index: OffsetIndex | None = None
        self.time_index: TimeIndex | None = None

    @property
    def stem(self) -> str:
        return file_stem(self._folder, self.base_offset)

    @property
    def is_active(self) -> bool:
        return self.offset_index is not None

    def move(self, folder: str) -> None:
        """The folder has been renamed; open descriptors stay good."""
        self._folder = folder

    def files(self) -> OpenSegment:
        """Return the open files, opening them where they are closed (that blocks).

        Keep the result in a variable while a descriptor of it is in use: with the last reference they are closed, and
        the number may then be another file's.
        """
        opened = self.opened
        if opened is None:
            opened = self._cache.open(self)
        opened.used = True
        return opened

    def close(self) -> None:
        """Let go of the files."""
        self._cache.close(self)

    def create(self) -> None:
        """Make the empty files of a new active segment. Blocks."""
        files = self._cache.files
        for suffix in (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX):
            files.close(files.open(self.stem + suffix, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        self.size_bytes = self.index_bytes = self.time_index_bytes = self.transaction_bytes = 0
        self.max_timestamp, self.max_timestamp_offset = NO_TIMESTAMP, self.base_offset
        self.offset_index = OffsetIndex(self.base_offset, 0)
        self.time_index = TimeIndex(self.base_offset, 0, NO_TIMESTAMP)

    def activate(self) -> None:
        """Make a segment found on disk the active one. Reads nothing: `prepare_append` does, at the first append."""
        self.offset_index = OffsetIndex(self.base_offset, self.index_bytes // OFFSET_ENTRY_SIZE)
        self.time_index = TimeIndex(self.base_offset, self.time_index_bytes // TIME_ENTRY_SIZE, UNKNOWN_TIMESTAMP)

    def prepare_append(self) -> None:
        """Learn what appending to a segment found on disk needs to know. Blocks for small reads, once."""
        assert self.time_index is not None, f"{self.stem} is not active"
        if self.time_index.last_timestamp == UNKNOWN_TIMESTAMP:
            last = self._last_time_entry()
            self.time_index.last_timestamp = last[0] if last else NO_TIMESTAMP
        self.load_first_timestamp()

    @property
    def is_prepared(self) -> bool:
        """Whether appending needs no read first."""
        return (
            self.time_index is not None
            and not self.index_is_lost
            and self.time_index.last_timestamp != UNKNOWN_TIMESTAMP
            and self.max_timestamp != UNKNOWN_TIMESTAMP
        )

    def load_first_timestamp(self) -> None:
        """Learn the first batch's timestamp. Blocks for one small read, once."""
        if self.first_timestamp == UNKNOWN_TIMESTAMP and self.size_bytes >= HEADER_SIZE:
            opened = self.files()
            self.first_timestamp = read_header(self._cache.files.pread(opened.log_fd, HEADER_SIZE, 0)).max_timestamp

    def load_max_timestamp(self, end_offset: int) -> bool:
        """Learn the largest timestamp from the last entry of the time index; False where that entry cannot be right.

        `end_offset` is one behind the segment's last offset. Blocks for two small reads, once.
        """
        if self.max_timestamp != UNKNOWN_TIMESTAMP:
            return True
        self.load_first_timestamp()
        last = self._last_time_entry()
        if last is None:
            self.max_timestamp, self.max_timestamp_offset = NO_TIMESTAMP, self.base_offset
            return self.first_timestamp <= NO_TIMESTAMP
        if last[0] < self.first_timestamp or self.base_offset + last[1] >= end_offset:
            return False
        self.max_timestamp, self.max_timestamp_offset = last[0], self.base_offset + last[1]
        return True

    def store_tails(self) -> None:
        """Write the index entries that wait in memory. Blocks for two small writes to the page cache."""
        offset_index, time_index = self.offset_index, self.time_index
        if offset_index is None or time_index is None:
            return
        files = self._cache.files
        if not offset_index.tail_count and not time_index.tail_count:
            return
        opened = self.files()
        if offset_index.tail_count:
            data = offset_index.tail_bytes()
            position = offset_index.stored_count * OFFSET_ENTRY_SIZE
            files.write_all(opened.index_fd(), data, position)
            offset_index.tail_stored()
            self.index_bytes = position + len(data)
        if time_index.tail_count:
            data = time_index.tail_bytes()
            position = time_index.stored_count * TIME_ENTRY_SIZE
            files.write_all(opened.time_index_fd(), data, position)
            time_index.tail_stored()
            self.time_index_bytes = position + len(data)

    def seal(self) -> None:
        """End the segment: its time index gets the largest timestamp as its last entry. Blocks for small writes."""
        if self.time_index is not None:
            self.time_index.maybe_append(self.max_timestamp, self.max_timestamp_offset)
            self.store_tails()
        self.offset_index = self.time_index = None

    def position_before(self, offset: int, *, wait: bool) -> int:
        """Return the position of a batch at or before the one that holds `offset`, near it.

        With `wait` false, BlockingIOError where the index is not open or not in memory.
        """
        index = self.offset_index
        if index is None:
            if self.index_bytes < OFFSET_ENTRY_SIZE:
                return 0
            index = OffsetIndex(self.base_offset, self.index_bytes // OFFSET_ENTRY_SIZE)
        elif not len(index):
            return 0
        cache_files = self._cache.files

        def read(size: int, position: int) -> bytes:
            opened = self.opened
            if not wait and (opened is None or not opened.has_index):
                raise BlockingIOError(self.stem)
            buffer = bytearray(size)
            opened = self.files()
            return bytes(buffer[: cache_files.preadv(opened.index_fd(), [buffer], position, wait=wait)])

        return index.lookup(offset, read)

    def offset_before_timestamp(self, timestamp: int) -> int:
        """Return an offset behind which the first record at or after `timestamp` lies. Blocks."""
        index = self.time_index or TimeIndex(self.base_offset, self.time_index_bytes // TIME_ENTRY_SIZE, NO_TIMESTAMP)
        files, opened = self._cache.files, self.files()
        return index.lookup(timestamp - 1, lambda size, position: files.pread(opened.time_index_fd(), size, position))

    def _last_time_entry(self) -> tuple[int, int] | None:
        count = self.time_index_bytes // TIME_ENTRY_SIZE
        if not count:
            return None
        opened = self.files()
        position = (count - 1) * TIME_ENTRY_SIZE
        data = self._cache.files.pread(opened.time_index_fd(), TIME_ENTRY_SIZE, position)
        if len(data) < TIME_ENTRY_SIZE:
            return None
        timestamp, relative_offset = TIME_ENTRY.unpack(data)
        return timestamp, relative_offset
