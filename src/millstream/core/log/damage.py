"""Damage in a segment file: bytes that are no valid batch, with valid ones behind them.

Such a batch is kept, reported and never served, and nothing behind it is dropped: it may be one bit of a large log, and
another replica or a backup may have what it held.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from millstream.core.log.files import FileSystem
from millstream.core.records import HEADER_SIZE, check_batches, find_batch, new_rows

SEARCH_BYTES: Final = 16 << 20  # a batch behind damage is found by search when it is at most half as large
RANGES_PER_SEGMENT_MAX: Final = 256


class CorruptRange(NamedTuple):
    """Bytes of a segment that are no valid batch; valid ones lie behind it (or the segment's end, before others)."""

    segment_base_offset: int
    position: int
    end_position: int
    first_offset: int
    next_offset: int


def merge_ranges(ranges: Iterable[CorruptRange]) -> list[CorruptRange]:
    """Return the ranges in order, those that touch as one, and at most RANGES_PER_SEGMENT_MAX of a segment.

    The last one of a segment with more covers all the rest, valid batches between them included.
    """
    merged: list[CorruptRange] = []
    count = 0
    for each in sorted(ranges):
        last = merged[-1] if merged else None
        if last is None or last.segment_base_offset != each.segment_base_offset:
            merged.append(each)
            count = 1
        elif each.position <= last.end_position or count == RANGES_PER_SEGMENT_MAX:
            merged[-1] = last._replace(
                end_position=max(last.end_position, each.end_position),
                first_offset=min(last.first_offset, each.first_offset),
                next_offset=max(last.next_offset, each.next_offset),
            )
        else:
            merged.append(each)
            count += 1
    return merged


def read_fully(files: FileSystem, fd: int, target: memoryview, position: int) -> memoryview:
    """Read until `target` is full or the file ends; return what was read."""
    done = 0
    while done < len(target):
        count = files.preadv(fd, [target[done:]], position + done)
        if not count:
            break
        done += count
    return target[:done]


def find_valid_batch(
    files: FileSystem, fd: int, position: int, size: int, offset_min: int, offset_max: int
) -> tuple[int, int] | None:
    """Look behind the damage at `position` for the next valid batch; return its position and base offset, or None."""
    head = files.pread(fd, HEADER_SIZE, position)
    behind = position + announced_size(memoryview(head))
    if position < behind < size:
        # Most damage leaves the length whole. Looking there first also steps over batches inside of a record's value.
        head = files.pread(fd, HEADER_SIZE, behind)
        needed = announced_size(memoryview(head))
        if HEADER_SIZE <= needed <= size - behind:
            data = read_fully(files, fd, memoryview(bytearray(needed)), behind)
            if check_batches(data, 0, len(data), offset_min, new_rows(1), True)[0] == 1:
                return behind, int.from_bytes(head[:8], "big")
    at = position + 1
    window = memoryview(bytearray(min(SEARCH_BYTES, max(size - at, 0))))
    while size - at >= HEADER_SIZE:
        data = read_fully(files, fd, window[: size - at], at)
        found = find_batch(data, 0, len(data), offset_min, offset_max)
        if found >= 0:
            return at + found, int.from_bytes(data[found : found + 8], "big")
        if at + len(data) >= size or not data:
            return None
        at += len(data) // 2
    return None


def announced_size(data: memoryview) -> int:
    """Return the bytes of the batch that `data` begins, as it says itself; HEADER_SIZE where even that is cut off."""
    if len(data) < 12:
        return HEADER_SIZE
    return max(int.from_bytes(data[8:12], "big", signed=True) + 12, HEADER_SIZE)
