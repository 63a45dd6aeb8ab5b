"""Putting a cleaned segment in the place of those it was made of, and finishing that at the next start after a crash.

Kafka's names and its order, so that either finishes what the other began:

    1  `.cleaned` files are written and synced (`cleaned_segment`)          a crash: they are removed
    2  renamed to `.swap`, the log last; the folder is synced               from here on the new segment holds
    3  the old segments' files are renamed to `.deleted`; synced            a crash: done again, see below
    4  `.swap` goes from the names, the log first; synced

After a crash a `.log.swap` without any `.cleaned` from its base on is whole. It ends with the last offset of the
segments it replaces (the cleaner keeps that last batch, were it empty), so it says itself which segments are to go.

Readers go on meanwhile. Who has an old segment's file open reads it to the end; who comes to open one of its files is
refused (SegmentReplacedError), for the name is another file's now, and looks again in the log's new list of segments.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from millstream.core.log.cleaner.errors import CleaningAbortedError
from millstream.core.log.damage import announced_size, read_fully
from millstream.core.log.files import FileSystem
from millstream.core.log.retention import DeletedSegment, rename_deleted
from millstream.core.log.segment import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    SWAP_SUFFIX,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    Segment,
    base_offset_of,
    file_stem,
)
from millstream.core.records import ROW_LAST_OFFSET, ROW_WIDTH, check_batches, new_rows

if TYPE_CHECKING:
    from millstream.core.log.cleaner.cleaned_segment import CleanedSegment
    from millstream.core.log.log import Log

_CHUNK_BYTES: Final = 1 << 20

_logger = logging.getLogger(__name__)


def replace_segments(
    log: Log, old: Sequence[tuple[Segment, int]], cleaned: CleanedSegment, now_ms: int
) -> list[DeletedSegment]:
    """Put `cleaned` in the place of `old`, segments with the sizes they had when they were read; return what goes.

    Blocks. Raises CleaningAbortedError where the log has changed meanwhile; then nothing is touched. A disk that fails
    in between takes the directory offline: what was begun is finished at the next start.
    """
    files = log.cache.files
    with log.lock:
        check_unchanged(log, old)
        suffixes = _suffixes(cleaned)
        try:
            for suffix in reversed(suffixes):
                files.rename(cleaned.stem + suffix + CLEANED_SUFFIX, cleaned.stem + suffix + SWAP_SUFFIX)
            files.sync_directory(log.path)
            return _finish(log, [segment for segment, _ in old], cleaned, suffixes, now_ms)
        except OSError as error:
            raise log.directory.failed(error, f"replacing segments of {log.path}", always_offline=True) from error


def check_unchanged(log: Log, old: Sequence[tuple[Segment, int]]) -> None:
    """Raise CleaningAbortedError unless these are sealed segments of the log, each of its size. Holds the lock."""
    with log.lock:
        if log.retired is not None:
            raise CleaningAbortedError(log.retired.message)
        if log.is_moving:
            raise CleaningAbortedError(f"{log.path} moves to another log directory")
        if not log.config.compacted:
            raise CleaningAbortedError(f"{log.path} is no longer compacted")
        items = log.segments.items
        for segment, size_bytes in old:
            if segment not in items or segment.is_active or segment.size_bytes != size_bytes:
                raise CleaningAbortedError(f"{segment.stem} was deleted or cut meanwhile")


def _finish(
    log: Log, old: Sequence[Segment], cleaned: CleanedSegment, suffixes: Sequence[str], now_ms: int
) -> list[DeletedSegment]:
    files = log.cache.files
    for segment in old:
        log.cache.replace(segment)
    due_ms = now_ms + log.config.file_delete_delay_ms
    head, *others = old
    deleted = [rename_deleted(files, segment, (*SEGMENT_SUFFIXES, SNAPSHOT_SUFFIX), due_ms) for segment in others]
    # Its indexes and its snapshot go on: those are replaced by name, and this is the state before the same offset.
    deleted.append(rename_deleted(files, head, (LOG_SUFFIX,), due_ms))
    files.sync_directory(log.path)
    for suffix in suffixes:
        files.rename(cleaned.stem + suffix + SWAP_SUFFIX, cleaned.stem + suffix)
    files.sync_directory(log.path)
    segment = _segment_of(log, head, old[-1], cleaned)
    gone = set(old)
    log.segments.replace([*(each for each in log.segments if each not in gone), segment])
    log.reader.forget_positions()
    log.unsynced = tuple(each for each in log.unsynced if each not in gone)
    return deleted


def _segment_of(log: Log, first: Segment, last: Segment, cleaned: CleanedSegment) -> Segment:
    segment = Segment(log.cache, log.path, cleaned.base_offset, created_ms=first.created_ms)
    segment.size_bytes = cleaned.size_bytes
    segment.index_bytes, segment.time_index_bytes = cleaned.index_bytes, cleaned.time_index_bytes
    segment.transaction_bytes = max(cleaned.transaction_bytes, 0)
    segment.max_timestamp, segment.max_timestamp_offset = cleaned.max_timestamp, cleaned.max_timestamp_offset
    segment.first_timestamp = cleaned.first_timestamp
    segment.modified_ms = last.modified_ms
    return segment


def _suffixes(cleaned: CleanedSegment) -> list[str]:
    suffixes = [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX]
    return suffixes if cleaned.transaction_bytes < 0 else [*suffixes, TRANSACTION_INDEX_SUFFIX]


def finish_interrupted(files: FileSystem, path: str, listing: Mapping[str, object]) -> None:
    """Finish or undo in a partition's folder what a crash interrupted; `listing` has its names. Blocks.

    May be interrupted itself at any point and begun again.
    """
    cleaned = [base for name in listing if name.endswith(CLEANED_SUFFIX) and (base := base_offset_of(name)) is not None]
    oldest_cleaned = min(cleaned, default=2**63)
    swapped = []
    for name in listing:
        base = base_offset_of(name)
        if name.endswith(SWAP_SUFFIX) and base is not None and base < oldest_cleaned:
            swapped.append(name)
        elif name.endswith(SWAP_SUFFIX):
            files.unlink(f"{path}/{name}")
    for name in listing:
        if name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX)):
            files.unlink(f"{path}/{name}")
    if not swapped:
        files.sync_directory(path)
        return
    for name in sorted(swapped):
        base = base_offset_of(name)
        if base is not None and name.endswith(LOG_SUFFIX + SWAP_SUFFIX):
            _logger.warning("%s/%s: a cleaning was interrupted; it is finished", path, name)
            _drop_replaced(files, path, listing, base, _end_offset(files, f"{path}/{name}", base))
    files.sync_directory(path)
    for name in sorted(swapped, key=lambda name: (not name.endswith(LOG_SUFFIX + SWAP_SUFFIX), name)):
        files.rename(f"{path}/{name}", f"{path}/{name.removesuffix(SWAP_SUFFIX)}")
    files.sync_directory(path)


def _drop_replaced(files: FileSystem, path: str, listing: Mapping[str, object], base: int, end_offset: int) -> None:
    # The segments that the one at `base` replaces, and of the one of the same base what has no successor.
    for name in listing:
        other = base_offset_of(name)
        if other is None or not name.endswith((*SEGMENT_SUFFIXES, SNAPSHOT_SUFFIX)):
            continue
        inside = base < other < end_offset
        stem = file_stem(path, other)
        suffix = name.removeprefix(stem.rpartition("/")[2])
        orphan = other == base and suffix in SEGMENT_SUFFIXES[1:] and name + SWAP_SUFFIX not in listing
        if inside or orphan:
            files.unlink(f"{path}/{name}")


def _end_offset(files: FileSystem, path: str, base_offset: int) -> int:
    # One behind the last offset in the file.
    rows = new_rows(1024)
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    fd = files.open(path, os.O_RDONLY)
    try:
        size, position, offset = files.size(fd), 0, base_offset
        while position < size:
            data = read_fully(files, fd, buffer[: size - position], position)
            count, stopped, _ = check_batches(data, 0, len(data), offset, rows, False)
            if count:
                offset = rows[(count - 1) * ROW_WIDTH + ROW_LAST_OFFSET] + 1
            elif len(buffer) < announced_size(data) <= size - position:
                buffer = memoryview(bytearray(announced_size(data)))
            else:
                break
            position += stopped
    finally:
        files.close(fd)
    return offset
