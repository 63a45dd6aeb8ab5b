"""Which old segments a log lets go, and letting go of them: renamed at once, unlinked later by LogManager.

Kafka's rules: only whole segments from the front, only below the high watermark; by the log start (DeleteRecords), by
age (the segment's largest timestamp, or its last change where it has none), by size. The active segment goes too when
all of it is due; a new one then takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from millstream.core.log.config import DELETE
from millstream.core.log.files import FileSystem
from millstream.core.log.segment import DELETED_SUFFIX, SEGMENT_SUFFIXES, SNAPSHOT_SUFFIX, Segment

if TYPE_CHECKING:
    from millstream.core.log.log import Log


class DeletedSegment(NamedTuple):
    """Files of a segment that left its log, to be unlinked when `due_ms` has come."""

    due_ms: int
    paths: tuple[str, ...]
    size_bytes: int


def count_to_delete(log: Log, now_ms: int, high_watermark: int) -> int:
    """Return how many segments, from the front, are due. May read the last entry of time indexes."""
    segments = list(log.segments)
    config = log.config
    by_policy = DELETE in config.cleanup_policy
    surplus = log.size_bytes - config.retention_bytes if by_policy and config.retention_bytes >= 0 else -1
    count = 0
    for index, segment in enumerate(segments):
        last = index + 1 == len(segments)
        end_offset = log.log_end_offset if last else segments[index + 1].base_offset
        if end_offset > high_watermark or (last and not segment.size_bytes):
            break
        left_behind = not last and end_offset <= log.log_start_offset
        oversize = surplus >= segment.size_bytes
        if not (left_behind or (by_policy and (oversize or _is_old(log, segment, config.retention_ms, now_ms)))):
            break
        surplus -= segment.size_bytes
        count += 1
    return count


def delete_old_segments(log: Log, now_ms: int, high_watermark: int) -> list[DeletedSegment]:
    """Take the segments that are due out of the log and rename their files; return them for unlinking."""
    with log.lock:  # from the first look on: what is appended meanwhile must not go with a segment that was old
        count = count_to_delete(log, now_ms, high_watermark)
        if not count:
            return []
        if count == len(log.segments):
            log.roll()
        segments = list(log.segments)
        leaving, staying = segments[:count], segments[count:]
        # First nobody asks for them any more, then they go.
        log.log_start_offset = max(log.log_start_offset, staying[0].base_offset)
        log.segments.replace(staying)
        log.reader.forget_positions()
        log.reader.forget_corrupt_ranges(before_offset=staying[0].base_offset)
        log.leader_epochs.truncate_from_start(log.log_start_offset)
        if log.leader_epochs.changed:
            log.write_leader_epochs()
        log.unsynced = tuple(segment for segment in log.unsynced if segment not in leaving)
        log.folder_changed = True
        due_ms = now_ms + log.config.file_delete_delay_ms
        suffixes = (*SEGMENT_SUFFIXES, SNAPSHOT_SUFFIX)
        return [rename_deleted(log.cache.files, segment, suffixes, due_ms) for segment in leaving]


def rename_deleted(files: FileSystem, segment: Segment, suffixes: Iterable[str], due_ms: int) -> DeletedSegment:
    """Rename these files of a segment, where they exist, to `.deleted`; return them for unlinking at `due_ms`."""
    segment.close()
    renamed = []
    for suffix in suffixes:
        path = segment.stem + suffix
        if files.exists(path):
            files.rename(path, path + DELETED_SUFFIX)
            renamed.append(path + DELETED_SUFFIX)
    return DeletedSegment(due_ms, tuple(renamed), segment.size_bytes)


def _is_old(log: Log, segment: Segment, retention_ms: int, now_ms: int) -> bool:
    if retention_ms < 0:
        return False
    log.load_max_timestamp(segment)
    newest_ms = segment.max_timestamp if segment.max_timestamp >= 0 else segment.modified_ms
    return now_ms - newest_ms > retention_ms
