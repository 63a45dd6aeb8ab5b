"""Opening a partition's folder: after a clean stop without reading a record, after a crash by recovery.

1. What an interrupted deletion or cleaning left is finished: `.deleted` and `.cleaned` files go; a `.swap` that
   completes a cleaning replaces the segments it covers, an incomplete one goes.
2. Segments are found by their `.log` files. An index that is missing, or no whole number of entries, is made again.
3. After a clean stop the recovery point is the log's end, and the snapshot of that offset the producers' state; both
   are written by the same stop, and where they disagree the last segment is scanned.
4. Otherwise the segments from the recovery point (or an older snapshot) on are scanned, `recovery` decides, and
   indexes, leader epochs and producers' state are made again from the batches.

Runs on a loading thread per log; blocks. OSErrors pass through, the caller knows the log directory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from millstream.core.log import checkpoints
from millstream.core.log.cleaner.swap import finish_interrupted
from millstream.core.log.config import LogConfig
from millstream.core.log.errors import CorruptCheckpointError
from millstream.core.log.leader_epochs import LeaderEpochs
from millstream.core.log.log import Log
from millstream.core.log.offset_index import ENTRY_SIZE as OFFSET_ENTRY_SIZE
from millstream.core.log.producer_state import ProducerState
from millstream.core.log.rebuild import delete_snapshots, load_snapshot, rebuild
from millstream.core.log.recovery import first_offset_to_scan
from millstream.core.log.segment import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SNAPSHOT_SUFFIX,
    SWAP_SUFFIX,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    UNKNOWN_TIMESTAMP,
    Segment,
    base_offset_of,
    file_name,
)
from millstream.core.log.segment_scan import ScanBuffers, rebuild_segment_indexes
from millstream.core.log.segments import Segments
from millstream.core.log.time_index import ENTRY_SIZE as TIME_ENTRY_SIZE
from millstream.core.log.topic_partition import TopicPartition
from millstream.core.log.transaction_index import ENTRY_SIZE as TRANSACTION_ENTRY_SIZE
from millstream.core.log.truncation import truncate_fully_at

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.files import FileSystem
    from millstream.core.log.open_segments import OpenSegments

_logger = logging.getLogger(__name__)


class LogLoader:
    """Opens the logs of one log directory; one per loading thread."""

    def __init__(
        self,
        directory: LogDirectory,
        cache: OpenSegments,
        *,
        now_ms: int,
        clean: bool,
        recovery_points: dict[TopicPartition, int],
        log_start_offsets: dict[TopicPartition, int],
        first_dirty_offsets: dict[TopicPartition, int],
        producer_count_max: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._directory = directory
        self._cache = cache
        self._files = cache.files
        self._now_ms = now_ms
        self._clean = clean
        self._recovery_points = recovery_points
        self._log_start_offsets = log_start_offsets
        self._first_dirty_offsets = first_dirty_offsets
        self._producer_count_max = producer_count_max
        self._on_progress = on_progress
        self._buffers: ScanBuffers | None = None

    def load(self, topic_partition: TopicPartition, path: str, config: LogConfig) -> Log:
        """Open the log in the folder `path`."""
        listing = {name: (size, modified_ms) for name, size, modified_ms in self._files.list_sizes(path)}
        if any(name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX, SWAP_SUFFIX)) for name in listing):
            finish_interrupted(self._files, path, listing)
            listing = {name: (size, modified_ms) for name, size, modified_ms in self._files.list_sizes(path)}
        found = _Found(listing)
        recovery_point = self._recovery_points.get(topic_partition)
        clean = self._clean and recovery_point is not None
        start_offset = max(self._log_start_offsets.get(topic_partition, 0), 0)
        segments = [self._segment(path, base, found) for base in found.base_offsets]
        created = not segments
        if created:
            segments = [Segment(self._cache, path, start_offset, created_ms=self._now_ms)]
            segments[0].create()
        log = Log(
            self._directory,
            self._cache,
            topic_partition,
            path,
            config,
            Segments(segments),
            topic_id=self.topic_id(path),
            log_start_offset=max(start_offset, segments[0].base_offset),
            log_end_offset=segments[-1].base_offset,
            flushed_offset=0,
            leader_epochs=self._leader_epochs(path, found),
            producers=ProducerState(count_max=self._producer_count_max),
            snapshot_offset=-1,
        )
        if not created:
            self._load_segments(log, found, recovery_point or 0, clean=clean)
            # Each clean stop leaves a snapshot where the log ended; only the newest of those can be of use.
            stray = set(found.snapshot_offsets).difference(found.base_offsets, [log.log_end_offset])
            delete_snapshots(log, stray)
        log.reserved_end_offset = log.log_end_offset
        if log.log_end_offset < start_offset:
            _logger.warning(
                "%s: it ends at %d, before its start offset %d: what was between is lost, the log starts empty",
                path, log.log_end_offset, start_offset,
            )  # fmt: skip
            truncate_fully_at(log, start_offset)
        log.leader_epochs.truncate_from_end(log.log_end_offset)
        log.leader_epochs.truncate_from_start(log.log_start_offset)
        if log.leader_epochs.changed:
            log.write_leader_epochs_if_possible()
        log.flushed_offset = min(recovery_point or 0, log.log_end_offset)
        log.first_dirty_offset = self._first_dirty_offsets.get(topic_partition)
        log.segments.active.activate()
        return log

    def _load_segments(self, log: Log, found: _Found, recovery_point: int, *, clean: bool) -> None:
        bases = found.base_offsets
        active_size = found.size(bases[-1], LOG_SUFFIX)
        if clean and not _plausible_end(bases[-1], active_size, recovery_point):
            clean = False
        scan_from = first_offset_to_scan(
            bases, found.snapshot_offsets, recovery_point, clean=clean, log_end_offset=recovery_point
        )
        if scan_from is None:
            log.log_end_offset = recovery_point
            log.snapshot_offset = max(found.snapshot_offsets, default=-1)
            if log.snapshot_offset == recovery_point and not load_snapshot(log, recovery_point, self._now_ms):
                scan_from = bases[0]
        if scan_from is None:
            self._rebuild_indexes(log, found, bases)
            return
        self._rebuild_indexes(log, found, [base for base in bases if base < scan_from])
        self._buffers = self._buffers or ScanBuffers()
        rebuild(
            log,
            found.snapshot_offsets,
            scan_from,
            now_ms=self._now_ms,
            buffers=self._buffers,
            on_progress=self._on_progress,
        )

    def _rebuild_indexes(self, log: Log, found: _Found, bases: Iterable[int]) -> None:
        for segment in log.segments:
            if segment.base_offset in bases and found.index_is_doubtful(segment.base_offset):
                self._buffers = self._buffers or ScanBuffers()
                scan = rebuild_segment_indexes(self._files, segment, log.config.index_interval_bytes, self._buffers)
                log.reader.add_corrupt_ranges(scan.damage)
                log.mark_unsynced([segment])

    def _segment(self, path: str, base_offset: int, found: _Found) -> Segment:
        size, modified_ms = found.listing[file_name(base_offset, LOG_SUFFIX)]
        segment = Segment(self._cache, path, base_offset, created_ms=self._now_ms)
        segment.size_bytes = size
        segment.modified_ms = modified_ms
        segment.index_bytes = found.size(base_offset, INDEX_SUFFIX)
        segment.time_index_bytes = found.size(base_offset, TIME_INDEX_SUFFIX)
        transaction_bytes = found.size(base_offset, TRANSACTION_INDEX_SUFFIX)
        segment.transaction_bytes = transaction_bytes - transaction_bytes % TRANSACTION_ENTRY_SIZE
        segment.max_timestamp = UNKNOWN_TIMESTAMP
        return segment

    def _leader_epochs(self, path: str, found: _Found) -> LeaderEpochs:
        if checkpoints.LEADER_EPOCH not in found.listing:
            return LeaderEpochs()
        name = f"{path}/{checkpoints.LEADER_EPOCH}"
        try:
            return LeaderEpochs(checkpoints.decode_leader_epochs(self._files.read_bytes(name)))
        except CorruptCheckpointError as error:
            _logger.warning("%s: %s; epochs are learned again from the batches that are read", name, error)
            return LeaderEpochs()

    def topic_id(self, path: str) -> bytes | None:
        """Return the topic id that a partition's folder names, None where it does not."""
        return read_topic_id(self._files, path)


def read_topic_id(files: FileSystem, path: str) -> bytes | None:
    """Return the topic id that `partition.metadata` in the folder `path` names, None where it does not."""
    name = f"{path}/{checkpoints.PARTITION_METADATA}"
    try:
        return checkpoints.decode_partition_metadata(files.read_bytes(name))
    except FileNotFoundError:
        return None
    except CorruptCheckpointError as error:
        _logger.warning("%s: %s; the partition is known by its name only", name, error)
        return None


class _Found:
    """A folder's listing, sorted out."""

    def __init__(self, listing: dict[str, tuple[int, int]]) -> None:
        self.listing = listing
        self.base_offsets = sorted(
            base for name in listing if name.endswith(LOG_SUFFIX) and (base := base_offset_of(name)) is not None
        )
        self.snapshot_offsets = sorted(
            offset
            for name in listing
            if name.endswith(SNAPSHOT_SUFFIX) and (offset := base_offset_of(name)) is not None
        )

    def size(self, base_offset: int, suffix: str) -> int:
        return self.listing.get(file_name(base_offset, suffix), (0, 0))[0]

    def index_is_doubtful(self, base_offset: int) -> bool:
        """Whether an index is missing or no whole number of entries, or has lost its closing time entry."""
        return (
            file_name(base_offset, INDEX_SUFFIX) not in self.listing
            or file_name(base_offset, TIME_INDEX_SUFFIX) not in self.listing
            or self.size(base_offset, INDEX_SUFFIX) % OFFSET_ENTRY_SIZE != 0
            or self.size(base_offset, TIME_INDEX_SUFFIX) % TIME_ENTRY_SIZE != 0
            or (self.size(base_offset, LOG_SUFFIX) > 0 and self.size(base_offset, TIME_INDEX_SUFFIX) == 0)
        )


def _plausible_end(active_base: int, active_size: int, end_offset: int) -> bool:
    # Whether a segment of that size can end there: empty at its base, or not.
    return end_offset > active_base if active_size else end_offset == active_base
