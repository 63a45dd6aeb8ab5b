"""Finding offsets by timestamp (ListOffsets). Blocks: it reads indexes and records."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from millstream.core.log.errors import CorruptBatchError
from millstream.core.records import BatchHeader, CorruptRecordError, iter_batches, iter_records

if TYPE_CHECKING:
    from millstream.core.log.log import Log

_READ_BYTES = 1 << 20


class TimestampOffset(NamedTuple):
    """A record's timestamp and offset, and the leader epoch of its batch."""

    timestamp: int
    offset: int
    leader_epoch: int


def offset_for_timestamp(log: Log, timestamp: int) -> TimestampOffset | None:
    """Return the first record at or after `timestamp` at or behind the log's start, None where there is none."""
    for segment in log.segments.from_offset(log.log_start_offset):
        log.load_max_timestamp(segment)
        if segment.size_bytes and segment.max_timestamp >= timestamp:
            start = max(segment.offset_before_timestamp(timestamp), log.log_start_offset)
            following = log.segments.after(segment)
            end = log.log_end_offset if following is None else following.base_offset
            found = _first_at_or_after(log, start, end, timestamp)
            if found is not None:
                return found
    return None


def max_timestamp_offset(log: Log) -> TimestampOffset | None:
    """Return the first record that has the largest timestamp of the log, None in an empty one."""
    largest = None
    for segment in log.segments.from_offset(log.log_start_offset):
        log.load_max_timestamp(segment)
        if segment.size_bytes and (largest is None or segment.max_timestamp > largest.max_timestamp):
            largest = segment
    if largest is None:
        return None
    start = max(largest.offset_before_timestamp(largest.max_timestamp), log.log_start_offset)
    following = log.segments.after(largest)
    end = log.log_end_offset if following is None else following.base_offset
    return _first_at_or_after(log, start, end, largest.max_timestamp)


def _first_at_or_after(log: Log, start: int, end: int, timestamp: int) -> TimestampOffset | None:
    offset = start
    while offset < end:
        try:
            read = log.read(offset, _READ_BYTES, end_offset=end)
        except CorruptBatchError as error:
            if error.next_offset is None or error.next_offset <= offset:
                return None
            offset = error.next_offset
            continue
        if read.next_offset <= offset:
            return None
        for header, batch in iter_batches(read.data):
            if header.max_timestamp >= timestamp:
                found = _in_batch(header, batch, timestamp, start)
                if found is not None:
                    return found
        offset = read.next_offset
    return None


def _in_batch(header: BatchHeader, batch: memoryview, timestamp: int, start: int) -> TimestampOffset | None:
    if header.attributes & 0x08:  # LogAppendTime: every record has the batch's timestamp
        offset = max(header.base_offset, start)
        return TimestampOffset(header.max_timestamp, offset, header.partition_leader_epoch)
    try:
        for record in iter_records(batch):
            if record.timestamp >= timestamp and record.offset >= start:
                return TimestampOffset(record.timestamp, record.offset, header.partition_leader_epoch)
    except CorruptRecordError:
        # A producer's compressed batch may not open. Its header has told the timestamp, so the batch is the answer.
        return TimestampOffset(header.max_timestamp, header.base_offset, header.partition_leader_epoch)
    return None
