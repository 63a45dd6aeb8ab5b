"""What a log is made of: its fields, their meaning, and what its parts share. See `log` for the whole.

`Log` is built in three steps, so that each fits a page or two: this state, `LogAppends` (reserve, write, roll) on top
of it, and `Log` with everything else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from millstream.core.log import checkpoints, segment_scan
from millstream.core.log.config import LogConfig
from millstream.core.log.damage import CorruptRange
from millstream.core.log.errors import LogDirectoryError, SegmentReplacedError
from millstream.core.log.files import Buffer
from millstream.core.log.log_reader import LogReader
from millstream.core.log.producer_state import ProducerEntry, ProducerState, encode_snapshot
from millstream.core.log.rolling import RollLimits
from millstream.core.log.segment import (
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    UNKNOWN_TIMESTAMP,
    Segment,
    file_stem,
)
from millstream.core.records import BatchHeader

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.leader_epochs import LeaderEpochs
    from millstream.core.log.open_segments import OpenSegments
    from millstream.core.log.segments import Segments
    from millstream.core.log.topic_partition import TopicPartition


class PendingBatch(NamedTuple):
    """One reserved batch. `entry` is its producer's state behind it, `marker` its header if it ends a transaction."""

    data: Buffer
    first_offset: int
    last_offset: int
    timestamp: int
    leader_epoch: int
    entry: ProducerEntry | None
    marker: BatchHeader | None = None


class LogState:
    """The state of one partition on disk; see the module's text."""

    __slots__ = (
        "__weakref__",
        "_index_due_ms",
        "_inline_limits",
        "_last_now_ms",
        "_markers",
        "_pending",
        "_reader",
        "_reserved_bytes",
        "_reserved_epoch",
        "_reserved_timestamp",
        "_written_bytes",
        "cache",
        "config",
        "created",
        "directory",
        "failure",
        "first_dirty_offset",
        "flushed_offset",
        "folder_changed",
        "generation",
        "is_moving",
        "leader_epochs",
        "lock",
        "log_end_offset",
        "log_start_offset",
        "path",
        "producers",
        "recovery_point_is_ahead",
        "reserved_end_offset",
        "retired",
        "segments",
        "snapshot_offset",
        "topic_id",
        "topic_partition",
        "truncation_count",
        "unsynced",
    )

    def __init__(
        self,
        directory: LogDirectory,
        cache: OpenSegments,
        topic_partition: TopicPartition,
        path: str,
        config: LogConfig,
        segments: Segments,
        *,
        topic_id: bytes | None,
        log_start_offset: int,
        log_end_offset: int,
        flushed_offset: int,
        leader_epochs: LeaderEpochs,
        producers: ProducerState,
        snapshot_offset: int,
    ) -> None:
        """Take over what `loader` found on disk or `LogManager.create_log` made there."""
        self.directory = directory
        self.topic_partition = topic_partition
        self.path = path
        self.topic_id = topic_id
        self.config = config
        self.segments = segments
        self.leader_epochs = leader_epochs
        self.producers = producers
        # First offset that a reader may ask for. Moves up only, by retention and DeleteRecords.
        self.log_start_offset = log_start_offset
        # One behind the last written offset. Moves when a write has ended; down only by truncation.
        self.log_end_offset = log_end_offset
        # One behind the last reserved offset; owned by the loop. Invariant: >= log_end_offset.
        self.reserved_end_offset = log_end_offset
        # The recovery point: everything before it is on the disk itself.
        self.flushed_offset = flushed_offset
        # Up to where the cleaner has cleaned, as its checkpoint says it; None where it never has. Moves up by the
        # cleaner, down by truncation.
        self.first_dirty_offset: int | None = None
        # Whether it is being copied to another log directory: its sealed segments stay as they are meanwhile, so the
        # cleaner leaves it alone.
        self.is_moving = False
        # Whether the one on disk may lie behind it, since the log was cut: then it is lowered before the next append.
        self.recovery_point_is_ahead = False
        # Grows when reservations were dropped: a write that was submitted for an older one must fail.
        self.generation = 0
        # Grows with each truncation: what was copied before it is no copy any more.
        self.truncation_count = 0
        # Why writing failed, until the loop has dropped the reservations (forget_reserved).
        self.failure: LogDirectoryError | None = None
        self.cache = cache
        self._reader = LogReader(
            str(topic_partition),
            segments,
            cache,
            lambda: self.log_end_offset,
            self.rebuild_index,
            self.find_damage,
            self.failed,
        )
        # Reserved and not yet written, in offset order. The loop appends, the writer pops.
        self._pending: deque[PendingBatch] = deque()
        # Bytes ever reserved (counted by the loop) and ever written or dropped (by the writer).
        self._reserved_bytes = 0
        self._written_bytes = 0
        self._reserved_epoch = leader_epochs.latest_epoch
        self._reserved_timestamp = -1
        # Transaction markers reserved; writing one opens the transaction index, so it is not done on the loop.
        self._markers = 0
        self._last_now_ms = segments.active.created_ms
        # When indexes that found no room are tried again.
        self._index_due_ms = 0
        # What the active segment can take; worked out by LogAppends.
        self.forbid_inline()
        # Offset of the newest producer snapshot on disk.
        self.snapshot_offset = snapshot_offset
        # Sealed segments whose files are not synced yet, and whether names in the folder are not.
        self.unsynced: tuple[Segment, ...] = ()
        self.folder_changed = False
        # Whether the folder itself is new: its name and its topic id are made durable with the next flush.
        self.created = False
        # Why nothing is written any more: the log was closed, or its folder is going. Set once, under the lock. What
        # fails afterwards says nothing about the disk.
        self.retired: LogDirectoryError | None = None
        self.lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Log {self.path} {self.log_start_offset}..{self.log_end_offset}>"

    # What it knows.

    @property
    def size_bytes(self) -> int:
        """Bytes of batches in all segments."""
        return self.segments.size_bytes

    @property
    def unwritten_bytes(self) -> int:
        """Bytes reserved and not yet written or dropped; for the loop."""
        return self._reserved_bytes - self._written_bytes

    @property
    def first_unstable_offset(self) -> int | None:
        """The first offset of the oldest transaction still open here, None without one."""
        return self.producers.first_unstable_offset

    @property
    def corrupt_ranges(self) -> tuple[CorruptRange, ...]:
        """Damage that was found and is kept but not served."""
        return self._reader.corrupt_ranges

    @property
    def reader(self) -> LogReader:
        return self._reader

    # What its parts share.

    def failed(self, error: OSError, doing: str, *, always_offline: bool = False) -> LogDirectoryError:
        """Return what to raise for `error`, having taken the directory offline where it is the disk's fault."""
        if self.retired is not None:
            return LogDirectoryError(f"{doing} failed: {self.retired.message}", shortage=True)
        if isinstance(error, SegmentReplacedError) or (
            isinstance(error, FileNotFoundError) and self._has_left(error.filename)
        ):
            return LogDirectoryError(f"{doing} failed: a segment was deleted meanwhile, try again", shortage=True)
        return self.directory.failed(error, doing, always_offline=always_offline)

    def retire(self, why: str) -> None:
        """Write nothing more: what is reserved is refused, and so is what comes. Holds the lock."""
        with self.lock:
            self.retired = self.failure = LogDirectoryError(f"{self.path}: {why}", shortage=True)

    def holds(self, segment: Segment) -> bool:
        """Whether the segment is still one of this log's, once whoever changes them has finished."""
        with self.lock:
            return segment in self.segments.items

    def _has_left(self, path: object) -> bool:
        # Whether this names a file of a segment that is not in the log any more.
        folder, _, name = str(path).rpartition("/")
        if not name.endswith(SEGMENT_SUFFIXES):
            return False
        if folder != self.path:
            return True  # it lay there before the log moved to another directory
        with self.lock:
            return all(file_stem(folder, segment.base_offset) not in str(path) for segment in self.segments)

    @contextmanager
    def storage_errors(self, doing: str) -> Iterator[None]:
        """Turn an OSError into the LogDirectoryError that it means for the directory."""
        try:
            yield
        except OSError as error:
            raise self.failed(error, f"{doing} {self.path}") from error

    def mark_unsynced(self, segments: Iterable[Segment]) -> None:
        """Their files are to be synced by the next flush."""
        with self.lock:
            self.unsynced = (*self.unsynced, *(segment for segment in segments if segment not in self.unsynced))
            self.folder_changed = True

    def write_snapshot(self, offset: int) -> None:
        """Write the producers' state before `offset` beside the segments, unless it is there. Blocks."""
        if offset > self.snapshot_offset:
            path = file_stem(self.path, offset) + SNAPSHOT_SUFFIX
            self.cache.files.write_synced(path, encode_snapshot(self.producers.entries()))
            self.snapshot_offset = offset

    def assign_topic_id(self, topic_id: bytes) -> None:
        """Take the id that the metadata knows, and write `partition.metadata`, which was lost. Blocks.

        Where the disk has no room it is written with the first flush that follows.
        """
        self.topic_id = topic_id
        try:
            self.write_partition_metadata()
        except OSError as error:
            self.created = True
            failure = self.failed(error, f"writing {self.path}/{checkpoints.PARTITION_METADATA}")
            if not failure.shortage:
                raise failure from error

    def write_partition_metadata(self) -> None:
        """Write the topic's id into the folder. Blocks."""
        if self.topic_id is not None:
            metadata = checkpoints.encode_partition_metadata(self.topic_id)
            self.cache.files.write_atomically(f"{self.path}/{checkpoints.PARTITION_METADATA}", metadata)

    def load_max_timestamp(self, segment: Segment) -> None:
        """Learn a segment's largest timestamp; where its time index cannot be right, it is made again. Blocks."""
        if segment.max_timestamp != UNKNOWN_TIMESTAMP:
            return
        with self.lock:  # an append could raise it between the look at the index and the note of what it said
            following = self.segments.after(segment)
            end_offset = self.log_end_offset if following is None else following.base_offset
            if not segment.load_max_timestamp(end_offset):
                self.rebuild_index(segment)

    def rebuild_index(self, segment: Segment) -> None:
        """Make the indexes of a segment again from its batches: they were found to be wrong. Blocks."""
        with self.lock:
            if segment.replaced:
                raise SegmentReplacedError(segment.stem)
            scan = segment_scan.rebuild_segment_indexes(self.cache.files, segment, self.config.index_interval_bytes)
            self.reader.add_corrupt_ranges(scan.damage)
            self.forbid_inline()
            if not segment.is_active:
                self.mark_unsynced([segment])

    def find_damage(self, segment: Segment) -> None:
        """Note what of a segment must not be served. Blocks for reading all of it, but not those who append."""
        with self.lock:
            generation, size_bytes = self.generation, segment.size_bytes
            following = self.segments.after(segment)
            end_offset = self.log_end_offset if following is None else following.base_offset
        scan = segment_scan.scan_segment(
            self.cache.files,
            segment.stem,
            segment.base_offset,
            index_interval_bytes=self.config.index_interval_bytes,
            buffers=segment_scan.ScanBuffers(),
            size_bytes=size_bytes,
            next_base_offset=end_offset,
        )
        found = scan.damage
        if scan.valid_bytes < size_bytes:
            tail = CorruptRange(
                segment.base_offset, scan.valid_bytes, size_bytes, scan.next_offset, max(scan.next_offset, end_offset)
            )
            found = [*found, tail]
        with self.lock:
            if generation == self.generation and segment in self.segments.items:  # else it may have been cut meanwhile
                self.reader.add_corrupt_ranges(found)

    def write_leader_epochs(self) -> None:
        """Write `leader-epoch-checkpoint`. Blocks; holds the lock."""
        data = checkpoints.encode_leader_epochs(self.leader_epochs.entries)
        self.leader_epochs.changed = False
        try:
            self.cache.files.write_atomically(f"{self.path}/{checkpoints.LEADER_EPOCH}", data)
        except OSError:
            self.leader_epochs.changed = True
            raise

    def forbid_inline(self) -> None:
        """Let the next write be done on a thread, where it works out what the active segment can take."""
        self._inline_limits = RollLimits(self.segments.active, self.config, -1, -1, -1, False, -2)
