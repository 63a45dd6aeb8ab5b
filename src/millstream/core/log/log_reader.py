"""Reading a log: from an offset to whole, CRC-checked batches, in one positioned read where all is as it should be.

The position comes from a small memory of where earlier reads ended, so a sequential reader never looks twice at the
bytes before its batch, or from the sparse index. `wait=False` is for the event loop: every read then asks the kernel
not to wait for the disk (RWF_NOWAIT), and whatever is unusual (a closed segment, a cold page, a batch that fails its
checks, an index that lies) raises BlockingIOError, so that the caller comes again on a thread with `wait=True`, where
there is time to find out what is wrong.

A batch that fails its checks is never served. The first reader that meets one has the segment scanned, which decides
what is damaged (a batch whose offset lies shows by the one behind it, so what a read ends with is held against that).
Known damage bounds every read; one that asks for an offset inside of it raises CorruptBatchError with the offset to go
on from, and one from behind it steps over.
"""

from __future__ import annotations

import errno
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.log.damage import RANGES_PER_SEGMENT_MAX, CorruptRange, merge_ranges
from millstream.core.log.errors import CorruptBatchError
from millstream.core.log.file_region import REGION_SIZE_BYTES_MIN, FileRegion
from millstream.core.log.segment import LOG_SUFFIX, Segment
from millstream.core.records import (
    HEADER_SIZE,
    ROW_LAST_OFFSET,
    ROW_WIDTH,
    StopReason,
    check_batches,
    new_rows,
    read_header,
    trim_batches,
)

if TYPE_CHECKING:
    from millstream.core.log.errors import LogDirectoryError
    from millstream.core.log.file_region import ReadBuffer
    from millstream.core.log.open_segments import OpenSegments
    from millstream.core.log.segments import Segments

_POSITIONS_MAX: Final = 16
_OFFSET_BYTES: Final = 8  # what a batch begins with
_CHUNK_BYTES: Final = 4 << 20
# A log that a thread had to read from its disk is tried without waiting again once this much was found in memory:
# several times what a kernel reads ahead.
_WARM_AFTER_BYTES: Final = 64 << 20
# What lies so near the log's end was written lately and is tried without waiting all the same.
_TAIL_BYTES: Final = 8 << 20

_logger = logging.getLogger(__name__)


class LogRead(NamedTuple):
    """Whole, CRC-checked batches, the first of which holds the asked offset or is the next one behind it."""

    data: memoryview
    first_offset: int  # base offset of the first batch, or the asked offset where there is no data
    next_offset: int  # where to read on
    # Where the same bytes lie, if they were read into a ReadBuffer and are worth sending from the file.
    region: FileRegion | None = None


class LogReader:
    """Reads the segments of one log; from any thread."""

    __slots__ = (
        "_cache",
        "_cold_bytes",
        "_end_offset",
        "_failed",
        "_find_damage",
        "_lock",
        "_name",
        "_positions",
        "_rebuild_index",
        "_segments",
        "_size_hint",
        "corrupt_ranges",
    )

    def __init__(
        self,
        name: str,
        segments: Segments,
        cache: OpenSegments,
        end_offset: Callable[[], int],
        rebuild_index: Callable[[Segment], None],
        find_damage: Callable[[Segment], None],
        failed: Callable[[OSError, str], LogDirectoryError],
    ) -> None:
        """Read `segments`; `end_offset` tells where the log ends now.

        `rebuild_index` makes a bad index again, `find_damage` adds a segment's damage to the corrupt ranges, and
        `failed` says what an error of the disk means for the log.
        """
        self._rebuild_index = rebuild_index
        self._find_damage = find_damage
        self._failed = failed
        self._name = name
        self._end_offset = end_offset
        self._segments = segments
        self._cache = cache
        # Known damage, by position. Replaced on change, so any thread may read it.
        self.corrupt_ranges: tuple[CorruptRange, ...] = ()
        # Offset to (segment, position) where a read ended and the next one will begin. At most _POSITIONS_MAX.
        self._positions: dict[int, tuple[Segment, int]] = {}
        # Size of the last batch that was larger than its reader asked for, 0 when the last read found none.
        self._size_hint = 0
        # How much threads must find in memory until reads far from the end are tried without waiting: RWF_NOWAIT
        # returns without the page, but queues the reading ahead first, which takes milliseconds on a busy disk.
        self._cold_bytes = 0
        self._lock = threading.Lock()

    def forget_positions(self) -> None:
        """The log was truncated or its segments replaced."""
        self._positions = {}

    def add_corrupt_ranges(self, found: Iterable[CorruptRange]) -> None:
        """Note damage, and say so once."""
        with self._lock:
            known = self.corrupt_ranges
            merged = tuple(merge_ranges((*known, *found)))
            if merged == known:
                return
            self.corrupt_ranges = merged
            self._positions = {}  # a read may have ended where one of these begins
        for each in sorted(set(merged).difference(known)):
            _logger.error(
                "%s: bytes %d to %d of segment %d are no valid batch; offsets %d to %d are kept on disk and not served",
                self._name, each.position, each.end_position, each.segment_base_offset, each.first_offset,
                each.next_offset - 1,
            )  # fmt: skip
            count = sum(1 for other in merged if other.segment_base_offset == each.segment_base_offset)
            if count == RANGES_PER_SEGMENT_MAX and each == max(
                other for other in merged if other.segment_base_offset == each.segment_base_offset
            ):
                _logger.error(
                    "%s: segment %d is damaged in %d places or more: whatever is intact between the last of them is "
                    "not served either; copy its file away before retention takes it",
                    self._name, each.segment_base_offset, count,
                )  # fmt: skip

    def forget_corrupt_ranges(self, *, before_offset: int = 0, from_offset: int = 2**63 - 1) -> None:
        """Drop what lay in parts of the log that are gone."""
        with self._lock:
            self.corrupt_ranges = tuple(
                each
                for each in self.corrupt_ranges
                if each.segment_base_offset >= before_offset and each.first_offset < from_offset
            )

    def read(
        self,
        offset: int,
        size_bytes_max: int,
        end_offset: int,
        *,
        at_least_one: bool,
        wait: bool,
        buffer: ReadBuffer | None = None,
    ) -> LogRead:
        """Read batches that hold offsets from `offset` on and end before `end_offset`; see `Log.read`."""
        positions = self._positions
        remembered = positions.get(offset)
        if remembered is not None:
            segment, position = remembered
            slack, by_index, offset_min = 0, False, offset
        else:
            found = self._segments.holding(offset)
            if found is None:  # it went while we were on our way
                raise OSError(errno.ENOENT, f"{self._name}: {offset} lies before the first segment")
            segment = found
            position = segment.position_before(offset, wait=wait)
            slack = 4096 + HEADER_SIZE
            by_index, offset_min = position > 0, segment.base_offset
        # Batches larger than what is asked for come in rows: the last one's size saves reading the next one twice.
        # A header at least, however little is asked for: reading nothing would look like the file's end.
        size_wanted = max(size_bytes_max, self._size_hint if at_least_one else 0, HEADER_SIZE)
        scanned: Segment | None = None
        while True:
            end_position = segment.size_bytes
            if self.corrupt_ranges:
                position, end_position = self._between_damage(segment, position, offset)
            available = end_position - position
            if by_index and available <= 0:
                position, by_index = self._distrust_index(segment, offset, wait=wait), False
                continue
            if available <= 0:
                following = self._segments.after(segment)
                if following is not None and following.base_offset < end_offset:
                    segment, position, slack, offset_min = following, 0, 0, following.base_offset
                elif following is not None or segment is scanned:
                    return LogRead(_NOTHING, offset, offset)
                else:  # a batch of the log's end is not where it should be
                    position, scanned = self._scan(segment, offset, wait=wait), segment
                    offset_min = segment.base_offset
                continue
            size = min(size_wanted + slack, available)
            opened = segment.opened
            data = self._read_at(segment, position, size, wait=wait, buffer=buffer)
            start, end, first_offset, next_offset, corrupt, needed = trim_batches(
                data, offset, end_offset, size_bytes_max, at_least_one
            )
            if by_index and (corrupt == 0 or _base_offset(data) > offset):
                # No batch there, or one too far on: the index may say what is not so.
                lies = corrupt != 0 or (wait and self._position_behind(segment, position) != position)
                by_index = False
                if lies or not wait:
                    position = self._distrust_index(segment, offset, wait=wait)
                    continue
            if end > start:
                behind = position + end
                if (
                    _base_offset(data) < offset_min
                    or self._base_behind(segment, behind, end_position, data[end:], next_offset, wait=wait)
                    < next_offset
                ):  # one of them lies about its offset
                    if segment is scanned:
                        raise CorruptBatchError(segment.stem + LOG_SUFFIX, position, offset, next_offset)
                    position, scanned, by_index = self._scan(segment, offset, wait=wait), segment, False
                    offset_min = segment.base_offset
                    continue
                self._remember(positions, next_offset, segment, position + end)
                if end - start <= size_bytes_max:
                    self._size_hint = 0
                region = None
                if buffer is not None and opened is not None and end - start >= REGION_SIZE_BYTES_MIN:
                    region = FileRegion(self._cache.files, opened, position + start, end - start, self._failed)
                return LogRead(data[start:end], first_offset, next_offset, region)
            slack = 0
            by_index = False
            if start == len(data) == size:
                position += start  # all of it lies before the offset
            elif corrupt < 0 and needed and start + needed <= available:
                if not at_least_one and size_bytes_max < needed > HEADER_SIZE:
                    return LogRead(_NOTHING, offset, offset)
                if not wait and len(data) < size and start + needed <= size:
                    raise BlockingIOError(segment.stem)  # the first pages were in memory, the next are not
                position, size_wanted = position + start, max(size_wanted, needed)
                self._size_hint = needed
            elif not wait:
                raise BlockingIOError(segment.stem)
            elif corrupt < 0 and not needed and self._is_valid(segment, position + start):
                return LogRead(_NOTHING, offset, offset)  # the next one lies behind the reader's end
            elif segment is scanned:
                raise CorruptBatchError(segment.stem + LOG_SUFFIX, position + start, offset, None)
            else:
                position, scanned = self._scan(segment, offset, wait=wait), segment
                offset_min = segment.base_offset

    def _distrust_index(self, segment: Segment, offset: int, *, wait: bool) -> int:
        # The index led astray: make it again, and look once more. That takes a thread.
        if not wait:
            raise BlockingIOError(segment.stem)
        self._rebuild_index(segment)
        return segment.position_before(offset, wait=True)

    def _scan(self, segment: Segment, offset: int, *, wait: bool) -> int:
        # Have all damage of the segment noted; return where to look for the offset again. That takes a thread.
        if not wait:
            raise BlockingIOError(segment.stem)
        self._find_damage(segment)
        return segment.position_before(offset, wait=True)

    def _base_behind(
        self, segment: Segment, position: int, end_position: int, data: memoryview, next_offset: int, *, wait: bool
    ) -> int:
        # What the batch at `position` says it begins with, at least next_offset where there is none to ask. `data` is
        # what has been read from there on.
        if position >= end_position:
            following = self._segments.after(segment)
            if following is None or end_position < segment.size_bytes:  # the log's end, or known damage
                return next_offset
            return following.base_offset
        if len(data) < _OFFSET_BYTES:
            data = self._read_at(segment, position, _OFFSET_BYTES, wait=wait, buffer=None)
        return _base_offset(data)

    def _read_at(
        self, segment: Segment, position: int, size: int, *, wait: bool, buffer: ReadBuffer | None
    ) -> memoryview:
        opened = segment.opened
        if not wait and (opened is None or (self._cold_bytes and not self._is_tail(segment, position))):
            raise BlockingIOError(segment.stem)
        if opened is None:
            opened = segment.files()
        opened.used = True
        fd = opened.log_fd
        files = self._cache.files
        target = memoryview(bytearray(size)) if buffer is None else buffer.view(size)
        if wait:
            blocks = files.blocks_read()
            done = more = files.preadv(fd, [target], position)
            while more and done < len(target):
                more = files.preadv(fd, [target[done:]], position + done)
                done += more
            self._cold_bytes = _WARM_AFTER_BYTES if files.blocks_read() != blocks else max(0, self._cold_bytes - done)
        else:
            done = files.preadv(fd, [target], position, wait=False)
        if not done:
            raise OSError(
                errno.EIO, f"{segment.stem}{LOG_SUFFIX} ends before byte {position}, where it had {size} more"
            )
        return target[:done]

    def _is_tail(self, segment: Segment, position: int) -> bool:
        return segment.size_bytes - position <= _TAIL_BYTES and self._segments.after(segment) is None

    def _between_damage(self, segment: Segment, position: int, offset: int) -> tuple[int, int]:
        # Where a reader of `offset` goes on from `position`, and where the next damage or the segment ends.
        ranges = self.corrupt_ranges
        at = bisect_right(ranges, (segment.base_offset, position, 2**63))
        if at and ranges[at - 1].segment_base_offset == segment.base_offset:
            before = ranges[at - 1]
            if position < before.end_position:
                if offset < before.next_offset:
                    raise CorruptBatchError(segment.stem + LOG_SUFFIX, before.position, offset, before.next_offset)
                position = before.end_position
        behind = ranges[at] if at < len(ranges) else None
        if behind is None or behind.segment_base_offset != segment.base_offset:
            return position, segment.size_bytes
        return position, behind.position

    def _position_behind(self, segment: Segment, position: int) -> int:
        # Where a walk over headers from the segment's start stands when it reaches `position`: there, if batches meet.
        offset, at = segment.base_offset, 0
        rows = new_rows(1024)
        for each in self.corrupt_ranges:
            if each.segment_base_offset == segment.base_offset and each.end_position <= position:
                offset, at = each.first_offset, each.end_position
        while at < position:
            data = self._read_at(segment, at, min(_CHUNK_BYTES, position - at), wait=True, buffer=None)
            done = 0
            while done < len(data):
                count, stopped, reason = check_batches(data, done, len(data), offset, rows, False)
                if count:
                    offset = rows[count * ROW_WIDTH - ROW_WIDTH + ROW_LAST_OFFSET] + 1
                done = stopped
                if reason != StopReason.ROWS_FULL:
                    break
            if not done:
                # One batch larger than a chunk, or the damage itself came first.
                header = read_header(data)
                if header.size_bytes <= len(data) or at + header.size_bytes > position:
                    return at + header.size_bytes
                offset, done = header.last_offset + 1, header.size_bytes
            at += done
        return at

    def _is_valid(self, segment: Segment, position: int) -> bool:
        data = self._read_at(segment, position, min(HEADER_SIZE, segment.size_bytes - position), wait=True, buffer=None)
        if len(data) < HEADER_SIZE:
            return False
        header = read_header(data)
        size = header.size_bytes
        following = self._segments.after(segment)
        end_offset = self._end_offset() if following is None else following.base_offset
        if not HEADER_SIZE <= size <= segment.size_bytes - position or header.last_offset >= end_offset:
            return False
        data = self._read_at(segment, position, size, wait=True, buffer=None)
        return check_batches(data, 0, len(data), 0, new_rows(1), True)[0] == 1

    def _remember(
        self, positions: dict[int, tuple[Segment, int]], offset: int, segment: Segment, position: int
    ) -> None:
        # `positions` are those of the read's beginning: what it found in a log that was truncated since goes with them.
        positions[offset] = (segment, position)
        if len(positions) > _POSITIONS_MAX:
            with self._lock:
                while len(positions) > _POSITIONS_MAX:
                    positions.pop(next(iter(positions)), None)


def _base_offset(batch: memoryview) -> int:
    return int.from_bytes(batch[:_OFFSET_BYTES], "big", signed=True)


_NOTHING: Final = memoryview(b"")
