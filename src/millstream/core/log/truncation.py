"""Cutting a log back, for a follower that diverged, and starting it anew. Blocks; nothing is reserved meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from millstream.core.log.damage import announced_size
from millstream.core.log.rebuild import cut_file, delete_files, delete_snapshots, rebuild
from millstream.core.log.segment import SNAPSHOT_SUFFIX, Segment
from millstream.core.log.segment_scan import ScanBuffers
from millstream.core.records import ROW_LAST_OFFSET, ROW_POSITION, ROW_WIDTH, check_batches, new_rows

if TYPE_CHECKING:
    from millstream.core.log.log import Log


def truncate_to(log: Log, offset: int) -> None:
    """Drop every batch that holds offsets at or behind `offset`; nothing happens where the log ends before it."""
    with log.lock:
        if offset >= log.log_end_offset:
            return
        if offset <= log.segments.first.base_offset:
            truncate_fully_at(log, offset)
            return
        files = log.cache.files
        holding = log.segments.holding(offset)
        assert holding is not None, f"{log.path}: {offset} lies before the first segment"
        size_bytes = _position_of(log, holding, offset)
        kept = []
        for segment in log.segments:
            if segment.base_offset > holding.base_offset:
                delete_files(files, segment)
            else:
                kept.append(segment)
        cut_file(files, holding, size_bytes)
        holding.size_bytes = size_bytes
        log.reader.forget_corrupt_ranges(from_offset=offset)
        log.segments.replace(kept)
        log.leader_epochs.truncate_from_end(offset)
        snapshots = snapshot_offsets(log)
        rebuild(
            log, snapshots, holding.base_offset, now_ms=int(time.time() * 1000), buffers=ScanBuffers()
        )  # the clock only says when producers were last used
        log.segments.active.activate()
        if log.log_end_offset < log.log_start_offset:
            # The log starts inside of a batch that is gone, and what lies before its start was deleted for good.
            truncate_fully_at(log, log.log_start_offset)
            return
        _moved(log)


def truncate_fully_at(log: Log, offset: int) -> None:
    """Drop everything and continue at `offset`."""
    with log.lock:
        files = log.cache.files
        for segment in log.segments:
            delete_files(files, segment)
        delete_snapshots(log, snapshot_offsets(log))
        log.snapshot_offset = -1
        segment = Segment(log.cache, log.path, offset, created_ms=log.segments.active.created_ms)
        segment.create()
        log.reader.forget_corrupt_ranges(from_offset=0)
        log.segments.replace([segment])
        log.producers.clear()
        log.leader_epochs.clear()
        log.log_start_offset = log.log_end_offset = offset
        _moved(log)


def snapshot_offsets(log: Log) -> list[int]:
    """Return the offsets of the producer snapshots in the log's folder."""
    names = [name for name, _ in log.cache.files.list_names(log.path) if name.endswith(SNAPSHOT_SUFFIX)]
    return sorted(int(name[:20]) for name in names if name[:20].isdigit())


def _moved(log: Log) -> None:
    log.folder_changed = True
    log.truncation_count += 1
    log.reader.forget_positions()
    log.unsynced = tuple(segment for segment in log.unsynced if segment in log.segments.items)
    log.leader_epochs.truncate_from_end(log.log_end_offset)
    log.flushed_offset = min(log.flushed_offset, log.log_end_offset)
    if log.first_dirty_offset is not None:
        log.first_dirty_offset = min(log.first_dirty_offset, log.log_end_offset)
    log.recovery_point_is_ahead = True
    log.directory.checkpoints.note_truncation(log.topic_partition, log.flushed_offset)
    log.log_start_offset = min(log.log_start_offset, log.log_end_offset)
    if log.leader_epochs.changed:
        log.write_leader_epochs()
    log.cache.files.sync_directory(log.path)
    log.forget_reserved()


def _position_of(log: Log, segment: Segment, offset: int) -> int:
    # Where the first batch that holds an offset at or behind `offset` begins. Damage is looked for first: a batch whose
    # offset lies would have what lies before `offset` cut off with it.
    log.find_damage(segment)
    ranges = [each for each in log.corrupt_ranges if each.segment_base_offset == segment.base_offset]
    position = segment.position_before(offset, wait=True)
    rows = new_rows(1024)
    opened, files = segment.files(), log.cache.files
    fd = opened.log_fd
    while position < segment.size_bytes:
        damage = next((each for each in ranges if each.position <= position < each.end_position), None)
        if damage is not None:
            if damage.next_offset > offset:
                return damage.position
            position = damage.end_position
            continue
        end = min((each.position for each in ranges if each.position > position), default=segment.size_bytes)
        data = files.pread(fd, min(4 << 20, end - position), position)
        count, stopped, _ = check_batches(data, 0, len(data), segment.base_offset, rows, False)
        if not count and len(data) < announced_size(memoryview(data)) <= end - position:
            data = files.pread(fd, announced_size(memoryview(data)), position)
            count, stopped, _ = check_batches(data, 0, len(data), segment.base_offset, rows, False)
        for row in range(0, count * ROW_WIDTH, ROW_WIDTH):
            if rows[row + ROW_LAST_OFFSET] >= offset:
                return position + rows[row + ROW_POSITION]
        if not count:
            return position
        position += stopped
    return segment.size_bytes
