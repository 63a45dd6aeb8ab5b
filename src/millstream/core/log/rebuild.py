"""Making what is derived from a log's batches again, from some segment on: after a crash, and after a truncation.

Scans the segments, lets `recovery` decide what is cut or dropped, and carries it out: indexes, transaction indexes,
producers' state, leader epochs, the log's end. Blocks; OSErrors pass through.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from millstream.core.log.files import FileSystem
from millstream.core.log.producer_rebuild import ProducerRebuild
from millstream.core.log.producer_state import CorruptSnapshotError, decode_snapshot
from millstream.core.log.recovery import plan_recovery
from millstream.core.log.segment import (
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    UNKNOWN_TIMESTAMP,
    Segment,
    file_stem,
)
from millstream.core.log.segment_scan import ScanBuffers, SegmentScan, scan_segment, write_indexes

if TYPE_CHECKING:
    from millstream.core.log.log import Log

_logger = logging.getLogger(__name__)


def rebuild(
    log: Log,
    snapshot_offsets: Iterable[int],
    scan_from: int,
    *,
    now_ms: int,
    buffers: ScanBuffers,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Scan the log's segments from the one that begins at `scan_from`, cut what is torn, make derived state again.

    The producers' state begins with the snapshot at `scan_from`. Where that is missing or corrupt an older one at a
    segment's start is taken, and the scan begins there; without any, at the log's first segment.
    """
    files = log.cache.files
    log.producers.clear()
    log.snapshot_offset = -1
    bases = [segment.base_offset for segment in log.segments]
    usable = {offset for offset in snapshot_offsets if offset <= scan_from} & set(bases)
    for offset in sorted(usable, reverse=True):
        if load_snapshot(log, offset, now_ms):
            scan_from = offset
            break
    else:
        scan_from = bases[0]
    scanned = [segment for segment in log.segments if segment.base_offset >= scan_from]
    producers = ProducerRebuild(log.producers, log.leader_epochs, now_ms)
    scans: list[SegmentScan] = []
    for index, segment in enumerate(scanned):
        producers.begin_segment()
        sealed = index + 1 < len(scanned)
        scan = scan_segment(
            files,
            segment.stem,
            segment.base_offset,
            index_interval_bytes=log.config.index_interval_bytes,
            buffers=buffers,
            next_base_offset=scanned[index + 1].base_offset if sealed else None,
            has_gaps=log.config.compacted,
            on_rows=producers.on_rows,
            on_restart=producers.restart_segment,
            on_progress=on_progress,
        )
        scans.append(scan)
        _write_derived(files, segment, scan, producers, sealed=sealed)
    plan = plan_recovery(scans)
    kept = [segment for segment in log.segments if segment.base_offset < scan_from]
    for segment, scan, verdict in zip(scanned, scans, plan.verdicts, strict=True):
        if verdict.drop:
            _logger.warning("%s: no valid batch in it, nor behind it; dropped", segment.stem)
            delete_files(files, segment)
            continue
        if verdict.size_bytes < scan.size_bytes:
            cut_file(files, segment, verdict.size_bytes)
        segment.size_bytes = verdict.size_bytes
        kept.append(segment)
    if plan.truncated_bytes:
        _logger.warning(
            "%s: %d bytes behind offset %d are no whole batch: a write was torn; cut off",
            log.path, plan.truncated_bytes, plan.log_end_offset,
        )  # fmt: skip
    log.reader.add_corrupt_ranges(plan.corrupt_ranges)
    log.segments.replace(kept)
    log.reader.forget_positions()
    log.log_end_offset = max(plan.log_end_offset, log.segments.active.base_offset)
    delete_snapshots(log, (offset for offset in snapshot_offsets if offset > log.log_end_offset))
    log.mark_unsynced(segment for segment in scanned if segment in kept[:-1])


def load_snapshot(log: Log, offset: int, now_ms: int) -> bool:
    """Take the producers' state before `offset` from its snapshot; False without a good one (a corrupt one goes)."""
    path = file_stem(log.path, offset) + SNAPSHOT_SUFFIX
    files = log.cache.files
    try:
        log.producers.load(decode_snapshot(files.read_bytes(path), now_ms))
    except FileNotFoundError:
        return False
    except CorruptSnapshotError as error:
        _logger.warning("%s: %s; the state is made again from the log", path, error)
        files.unlink(path)
        return False
    log.snapshot_offset = offset
    return True


def delete_snapshots(log: Log, offsets: Iterable[int]) -> None:
    """Unlink the snapshots of these offsets."""
    for offset in offsets:
        path = file_stem(log.path, offset) + SNAPSHOT_SUFFIX
        if log.cache.files.exists(path):
            log.cache.files.unlink(path)


def delete_files(files: FileSystem, segment: Segment) -> None:
    """Unlink a segment's files, the log last, so that a crash leaves nothing that looks like a segment without one."""
    segment.close()
    unlink_files(files, segment.stem, reversed(SEGMENT_SUFFIXES))


def unlink_files(files: FileSystem, stem: str, suffixes: Iterable[str]) -> None:
    """Unlink those of a segment's files that are there, in this order."""
    for suffix in suffixes:
        if files.exists(stem + suffix):
            files.unlink(stem + suffix)


def cut_file(files: FileSystem, segment: Segment, size_bytes: int) -> None:
    """Cut the segment's log file, durably."""
    fd = files.open(segment.stem + LOG_SUFFIX, os.O_RDWR)
    try:
        files.truncate(fd, size_bytes)
        files.fsync(fd)
    finally:
        files.close(fd)


def _write_derived(
    files: FileSystem, segment: Segment, scan: SegmentScan, producers: ProducerRebuild, *, sealed: bool
) -> None:
    segment.close()
    write_indexes(files, segment, scan, sealed=sealed)
    segment.max_timestamp = scan.max_timestamp
    segment.max_timestamp_offset = scan.max_timestamp_offset if scan.batches else segment.base_offset
    segment.first_timestamp = scan.first_timestamp if scan.batches else UNKNOWN_TIMESTAMP
    segment.bytes_since_index = scan.bytes_since_index
    data = b"".join(aborted.encode() for aborted in producers.aborted)
    path = segment.stem + TRANSACTION_INDEX_SUFFIX
    if (data or segment.transaction_bytes) and not (files.exists(path) and files.read_bytes(path) == data):
        files.write_synced(path, data)
    segment.transaction_bytes = len(data)
