"""Walking a segment's batches: what recovery, index rebuilding and truncation need to know of it.

The file is read in large chunks into one buffer, and a kernel walks each chunk with the GIL released: CRCs, index
entries, largest timestamp. Python sees a row only for batches of producers, control batches and the first of a leader
epoch.

A batch that fails its checks is stepped over: the next valid batch behind it is looked for, first where its own length
says, then byte by byte. What lies between is a CorruptRange. One whose base offset lies (`lying_offsets`) is one too;
where only the batch behind it gave it away, the scan begins anew and knows. Whether damage at the end of the
file is a torn tail is not decided here (`recovery`).
"""

from __future__ import annotations

import logging
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from millstream.core.log.damage import CorruptRange, announced_size, find_valid_batch, merge_ranges, read_fully
from millstream.core.log.errors import SHORTAGE_ERRNOS
from millstream.core.log.files import FileSystem
from millstream.core.log.lying_offsets import LIARS_MAX, Placed, is_one_bit_up, liars, placed
from millstream.core.log.segment import INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, Segment
from millstream.core.log.time_index import ENTRY as TIME_ENTRY
from millstream.core.records import (
    HEADER_SIZE,
    ROW_BASE_OFFSET,
    ROW_LAST_OFFSET,
    ROW_POSITION,
    ROW_SIZE_BYTES,
    ROW_WIDTH,
    STATE_BATCHES,
    STATE_BYTES_SINCE_INDEX,
    STATE_FILE_POSITION,
    STATE_INDEX_BYTES,
    STATE_LAST_TIME_INDEXED,
    STATE_MAX_TIMESTAMP,
    STATE_NEXT_OFFSET,
    STATE_OFFSET_OF_MAX_TIMESTAMP,
    STATE_POSITION,
    STATE_RECORDS,
    STATE_ROWS,
    STATE_TIME_INDEX_BYTES,
    StopReason,
    check_batches,
    index_batches,
    new_index_state,
    new_rows,
    read_header,
)

CHUNK_BYTES: Final = 4 << 20

_ROWS: Final = 4096
_OFFSET_INDEX_BYTES: Final = 1 << 16
_TIME_INDEX_BYTES: Final = 3 << 15

_logger = logging.getLogger(__name__)

# on_rows(rows, count, data): the special batches of one chunk, in order; positions count from the start of `data`.
OnRows = Callable[["array[int]", int, memoryview], None]


@dataclass(slots=True)
class SegmentScan:
    """What is in one segment file."""

    base_offset: int
    size_bytes: int  # of the file
    valid_bytes: int = 0  # where the last whole batch ends
    next_offset: int = 0  # one behind its last offset
    batches: int = 0
    records: int = 0
    max_timestamp: int = -1
    max_timestamp_offset: int = -1
    first_timestamp: int = -1
    bytes_since_index: int = 0
    damage: list[CorruptRange] = field(default_factory=list)  # each with a whole batch behind it, or one itself
    offset_index: bytearray = field(default_factory=bytearray)
    time_index: bytearray = field(default_factory=bytearray)
    last_time_indexed: int = -1


class ScanBuffers:
    """What one scanning thread uses again from segment to segment."""

    def __init__(self) -> None:
        self.chunk = bytearray(CHUNK_BYTES)
        self.rows = new_rows(_ROWS)
        self.offset_index = bytearray(_OFFSET_INDEX_BYTES)
        self.time_index = bytearray(_TIME_INDEX_BYTES)

    def chunk_of(self, size: int) -> memoryview:
        """Return a writable view of at least CHUNK_BYTES and `size` bytes."""
        if len(self.chunk) < size:
            self.chunk = bytearray(size)
        return memoryview(self.chunk)


def scan_segment(
    files: FileSystem,
    stem: str,
    base_offset: int,
    *,
    index_interval_bytes: int,
    buffers: ScanBuffers,
    size_bytes: int | None = None,
    next_base_offset: int | None = None,
    has_gaps: bool = True,
    on_rows: OnRows | None = None,
    on_restart: Callable[[], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> SegmentScan:
    """Walk `<stem>.log`, or its first `size_bytes`, and return what is in it. OSError as the system says.

    `next_base_offset` is that of the segment behind. Without `has_gaps` offsets are known to follow each other, so that
    a last batch can be found to lie. `on_restart` is called when what `on_rows` was given is void and comes again.
    """
    fd = files.open(stem + LOG_SUFFIX, os.O_RDONLY)
    try:
        size = files.size(fd) if size_bytes is None else min(files.size(fd), size_bytes)
        walk = _Walk(files, fd, base_offset, size, buffers, next_base_offset, has_gaps=has_gaps)
        while (scan := walk.scan(index_interval_bytes, on_rows, on_progress)) is None:
            if on_restart is not None:
                on_restart()
        return scan
    finally:
        files.close(fd)


class _Walk:
    """One segment's walk, and the lying batches it has found."""

    def __init__(
        self,
        files: FileSystem,
        fd: int,
        base_offset: int,
        size: int,
        buffers: ScanBuffers,
        next_base_offset: int | None,
        *,
        has_gaps: bool,
    ) -> None:
        self._files = files
        self._fd = fd
        self._base_offset = base_offset
        self._size = size
        self._buffers = buffers
        self._next_base_offset = next_base_offset
        self._has_gaps = has_gaps
        self._offset_max = (base_offset + 2**31 if next_base_offset is None else next_base_offset) - 1
        self._liars: dict[int, Placed] = {}
        self._liar_positions: list[int] = []
        # Where the last two chunks began, and the offset that was expected there.
        self._anchors = ((0, base_offset), (0, base_offset))

    def scan(
        self, index_interval_bytes: int, on_rows: OnRows | None, on_progress: Callable[[int], None] | None
    ) -> SegmentScan | None:
        """Walk all of it; None where a lie was found in what has been handed on: again, please."""
        files, fd, size, buffers = self._files, self._fd, self._size, self._buffers
        scan = SegmentScan(self._base_offset, size, next_offset=self._base_offset)
        state = new_index_state(self._base_offset, index_interval_bytes=index_interval_bytes)
        self._anchors = ((0, self._base_offset), (0, self._base_offset))
        position, wanted, is_survey = 0, CHUNK_BYTES, False
        while position < size:
            if position in self._liars:
                position = self._step_over(scan, state, self._liars[position])
                continue
            chunk = buffers.chunk_of(wanted)
            end = self._next_liar(position)
            data = read_fully(files, fd, chunk[: min(len(chunk), end - position)], position)
            if not data:
                break  # the file shrank under us: what is gone was not there
            self._anchors = (self._anchors[1], (position, state[STATE_NEXT_OFFSET]))
            state[STATE_FILE_POSITION], state[STATE_POSITION] = position, 0
            reason = StopReason.ROWS_FULL
            while reason == StopReason.ROWS_FULL:
                reason = StopReason(
                    index_batches(data, state, buffers.offset_index, buffers.time_index, buffers.rows, True)
                )
                scan.offset_index += memoryview(buffers.offset_index)[: state[STATE_INDEX_BYTES]]
                scan.time_index += memoryview(buffers.time_index)[: state[STATE_TIME_INDEX_BYTES]]
                if state[STATE_ROWS] and on_rows is not None and not is_survey:
                    on_rows(buffers.rows, state[STATE_ROWS], data)
            stopped = state[STATE_POSITION]
            if stopped:
                scan.valid_bytes = position + stopped
                if position == 0:
                    scan.first_timestamp = read_header(data).max_timestamp
            if on_progress is not None:
                on_progress(stopped)
            position += stopped
            wanted = CHUNK_BYTES
            if reason == StopReason.END:
                continue
            if reason == StopReason.TRUNCATED and position < size:
                needed = announced_size(data[stopped:])
                if position + needed <= size and (stopped or needed > len(data)):
                    wanted = needed
                    continue
            if reason == StopReason.BAD_OFFSET and (lie := self._lie_at(position)) is not None:
                if lie[0] < position:  # what was handed on is void: from here on only more lies are looked for
                    position, state[STATE_NEXT_OFFSET] = lie
                    is_survey = True
                continue
            behind = find_valid_batch(files, fd, position, size, state[STATE_NEXT_OFFSET], self._offset_max)
            if behind is None:
                break
            start, first_offset = behind
            scan.damage.append(CorruptRange(self._base_offset, position, start, state[STATE_NEXT_OFFSET], first_offset))
            state[STATE_NEXT_OFFSET] = first_offset
            position = start
        if last := self._lying_last(position, state[STATE_NEXT_OFFSET]):
            self._liars[last.position] = last
            is_survey = True
        if is_survey:
            return None
        scan.next_offset = state[STATE_NEXT_OFFSET]
        scan.batches, scan.records = state[STATE_BATCHES], state[STATE_RECORDS]
        scan.max_timestamp = state[STATE_MAX_TIMESTAMP]
        scan.max_timestamp_offset = state[STATE_OFFSET_OF_MAX_TIMESTAMP]
        scan.bytes_since_index = state[STATE_BYTES_SINCE_INDEX]
        scan.last_time_indexed = state[STATE_LAST_TIME_INDEXED]
        scan.damage = merge_ranges(scan.damage)
        return scan

    def _step_over(self, scan: SegmentScan, state: array[int], liar: Placed) -> int:
        # It takes the offsets that it must have had; what follows says how many more are lost with it.
        expected = state[STATE_NEXT_OFFSET]
        end = liar.position + liar.size_bytes
        next_offset = max(expected + liar.offset_count, min(self._base_at(end) or 0, self._offset_max + 1))
        scan.damage.append(CorruptRange(self._base_offset, liar.position, end, expected, next_offset))
        scan.valid_bytes = end
        state[STATE_NEXT_OFFSET] = expected + liar.offset_count
        self._anchors = ((end, state[STATE_NEXT_OFFSET]),) * 2
        return end

    def _base_at(self, position: int) -> int | None:
        # What the batch at `position` begins with, as far as that can be believed.
        if position >= self._size:
            return self._next_base_offset
        batch = None if position in self._liars else self._batch_at(position)
        return None if batch is None else batch.base_offset

    def _batch_at(self, position: int) -> Placed | None:
        head = self._files.pread(self._fd, HEADER_SIZE, position)
        needed = announced_size(memoryview(head))
        if len(head) < HEADER_SIZE or needed > self._size - position:
            return None
        return placed(read_fully(self._files, self._fd, memoryview(bytearray(needed)), position), position)

    def _next_liar(self, position: int) -> int:
        if len(self._liars) != len(self._liar_positions):
            self._liar_positions = sorted(self._liars)
        at = bisect_right(self._liar_positions, position)
        return self._liar_positions[at] if at < len(self._liar_positions) else self._size

    def _lie_at(self, position: int) -> tuple[int, int] | None:
        # The batch at `position` is out of order: note who lies, return where that begins and which offset belongs
        # there. None where it is damaged otherwise.
        here = self._batch_at(position) if len(self._liars) < LIARS_MAX else None
        if here is None:
            return None
        expected, before = self._last_before(position)
        found = liars(expected, before, here, self._base_at(position + here.size_bytes))
        self._liars.update((each.position, each) for each in found)
        return found[0].position, expected

    def _lying_last(self, end: int, next_offset: int) -> Placed | None:
        # Is the last batch one that no other follows to tell?
        beyond = self._next_base_offset is not None and next_offset > self._next_base_offset
        if (self._has_gaps and not beyond) or len(self._liars) >= LIARS_MAX:
            return None
        expected, last = self._last_before(end)
        if last is None or not (beyond or is_one_bit_up(last.base_offset, expected)):
            return None
        return last

    def _last_before(self, end: int) -> tuple[int, Placed | None]:
        # The batch that ends at `end`, and the offset that was expected of it.
        for start, expected in reversed(self._anchors):
            found = self._last_between(start, end, expected) if start < end else None
            if found is not None and found[1].position not in self._liars:
                return found
        return self._anchors[1][1], None

    def _last_between(self, start: int, end: int, expected: int) -> tuple[int, Placed] | None:
        data = read_fully(self._files, self._fd, memoryview(bytearray(end - start)), start)
        rows, position, last = new_rows(1024), 0, None
        while position < len(data):
            count, position, reason = check_batches(data, position, len(data), expected, rows, False)
            for row in range(max(0, count - 2) * ROW_WIDTH, count * ROW_WIDTH, ROW_WIDTH):
                if last is not None:
                    expected = last.next_offset
                base_offset = rows[row + ROW_BASE_OFFSET]
                last = Placed(
                    start + rows[row + ROW_POSITION],
                    rows[row + ROW_SIZE_BYTES],
                    base_offset,
                    rows[row + ROW_LAST_OFFSET] + 1 - base_offset,
                )
            if reason != StopReason.ROWS_FULL:
                break
        return None if last is None or last.position + last.size_bytes != end else (expected, last)


def write_indexes(files: FileSystem, segment: Segment, scan: SegmentScan, *, sealed: bool) -> None:
    """Write the index files of a scanned segment anew; a sealed one gets its last time entry.

    Where the disk has no room they are left empty (`Segment.index_is_lost`): lookups then begin at the segment's start,
    and the next start of the broker makes them again too.
    """
    time_index = bytes(scan.time_index)
    if sealed and scan.max_timestamp > scan.last_time_indexed:
        time_index += TIME_ENTRY.pack(scan.max_timestamp, scan.max_timestamp_offset - scan.base_offset)
    segment.index_bytes, segment.time_index_bytes = len(scan.offset_index), len(time_index)
    segment.index_is_lost = False
    try:
        files.write_unsynced(segment.stem + INDEX_SUFFIX, scan.offset_index)
        files.write_unsynced(segment.stem + TIME_INDEX_SUFFIX, time_index)
    except OSError as error:
        if error.errno not in SHORTAGE_ERRNOS:
            raise
        _logger.warning("%s: there is no room for its indexes: %s; reads are slower for now", segment.stem, error)
        segment.index_bytes = segment.time_index_bytes = 0
        segment.index_is_lost = True
        for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX):
            if files.exists(segment.stem + suffix):  # part of an index would be taken for all of it
                files.unlink(segment.stem + suffix)


def rebuild_segment_indexes(
    files: FileSystem, segment: Segment, index_interval_bytes: int, buffers: ScanBuffers | None = None
) -> SegmentScan:
    """Make both indexes of a segment again from its batches, in the file and, where it is active, in memory."""
    _logger.warning("%s: an index is missing or wrong; it is made again from the log", segment.stem)
    scan = scan_segment(
        files,
        segment.stem,
        segment.base_offset,
        index_interval_bytes=index_interval_bytes,
        buffers=buffers or ScanBuffers(),
    )
    active = segment.is_active
    segment.close()
    write_indexes(files, segment, scan, sealed=not active)
    segment.max_timestamp, segment.max_timestamp_offset = scan.max_timestamp, scan.max_timestamp_offset
    segment.bytes_since_index = scan.bytes_since_index
    if active:
        segment.activate()
    return scan
