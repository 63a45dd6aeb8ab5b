"""Walking a segment's batches: what recovery, index rebuilding and truncation need to know of it.

The file is read in large chunks into one buffer, and a kernel walks each chunk with the GIL released: CRCs, index
entries, largest timestamp. Python sees a row only for batches of producers, control batches and the first of a leader
epoch.

A batch that fails its checks is stepped over: the next valid batch behind it is looked for, first where its own length
says, then byte by byte. What lies between is a CorruptRange. Whether damage at the end of the file is a torn tail is
not decided here (`recovery`).
"""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from millstream.core.log.damage import CorruptRange, announced_size, find_valid_batch, read_fully
from millstream.core.log.files import FileSystem
from millstream.core.log.segment import INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, Segment
from millstream.core.log.time_index import ENTRY as TIME_ENTRY
from millstream.core.records import (
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
    valid_bytes: int = 0  # where the last valid batch ends
    next_offset: int = 0  # one behind its last offset
    batches: int = 0
    records: int = 0
    max_timestamp: int = -1
    max_timestamp_offset: int = -1
    first_timestamp: int = -1
    bytes_since_index: int = 0
    damage: list[CorruptRange] = field(default_factory=list)  # each with a valid batch behind it
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
    on_rows: OnRows | None = None,
    next_base_offset: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> SegmentScan:
    """Walk `<stem>.log` and return what is in it. OSError as the system says."""
    fd = files.open(stem + LOG_SUFFIX, os.O_RDONLY)
    try:
        return _scan(files, fd, base_offset, index_interval_bytes, buffers, on_rows, next_base_offset, on_progress)
    finally:
        files.close(fd)


def _scan(
    files: FileSystem,
    fd: int,
    base_offset: int,
    index_interval_bytes: int,
    buffers: ScanBuffers,
    on_rows: OnRows | None,
    next_base_offset: int | None,
    on_progress: Callable[[int], None] | None,
) -> SegmentScan:
    size = files.size(fd)
    scan = SegmentScan(base_offset, size, next_offset=base_offset)
    offset_max = (base_offset + 2**31 if next_base_offset is None else next_base_offset) - 1
    state = new_index_state(base_offset, index_interval_bytes=index_interval_bytes)
    position, wanted = 0, CHUNK_BYTES
    while position < size:
        chunk = buffers.chunk_of(wanted)
        data = read_fully(files, fd, chunk[: min(len(chunk), size - position)], position)
        if not data:
            break  # the file shrank under us: what is gone was not there
        state[STATE_FILE_POSITION], state[STATE_POSITION] = position, 0
        reason = StopReason.ROWS_FULL
        while reason == StopReason.ROWS_FULL:
            reason = StopReason(
                index_batches(data, state, buffers.offset_index, buffers.time_index, buffers.rows, True)
            )
            scan.offset_index += memoryview(buffers.offset_index)[: state[STATE_INDEX_BYTES]]
            scan.time_index += memoryview(buffers.time_index)[: state[STATE_TIME_INDEX_BYTES]]
            if state[STATE_ROWS] and on_rows is not None:
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
        found = find_valid_batch(files, fd, position, size, state[STATE_NEXT_OFFSET], offset_max)
        if found is None:
            break
        start, first_offset = found
        scan.damage.append(CorruptRange(base_offset, position, start, state[STATE_NEXT_OFFSET], first_offset))
        state[STATE_NEXT_OFFSET] = first_offset
        position = start
    scan.next_offset = state[STATE_NEXT_OFFSET]
    scan.batches, scan.records = state[STATE_BATCHES], state[STATE_RECORDS]
    scan.max_timestamp, scan.max_timestamp_offset = state[STATE_MAX_TIMESTAMP], state[STATE_OFFSET_OF_MAX_TIMESTAMP]
    scan.bytes_since_index = state[STATE_BYTES_SINCE_INDEX]
    scan.last_time_indexed = state[STATE_LAST_TIME_INDEXED]
    return scan


def write_indexes(files: FileSystem, stem: str, scan: SegmentScan, *, sealed: bool) -> tuple[int, int]:
    """Write the index files of a scanned segment anew; return their sizes. A sealed one gets its last time entry."""
    time_index = bytes(scan.time_index)
    if sealed and scan.max_timestamp > scan.last_time_indexed:
        time_index += TIME_ENTRY.pack(scan.max_timestamp, scan.max_timestamp_offset - scan.base_offset)
    for suffix, data in ((INDEX_SUFFIX, bytes(scan.offset_index)), (TIME_INDEX_SUFFIX, time_index)):
        fd = files.open(stem + suffix, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            files.write_all(fd, data, 0)
        finally:
            files.close(fd)
    return len(scan.offset_index), len(time_index)


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
    segment.index_bytes, segment.time_index_bytes = write_indexes(files, segment.stem, scan, sealed=not active)
    segment.max_timestamp, segment.max_timestamp_offset = scan.max_timestamp, scan.max_timestamp_offset
    segment.bytes_since_index = scan.bytes_since_index
    if active:
        segment.activate()
    return scan
