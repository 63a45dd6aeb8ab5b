"""One replica on its way to another log directory of this broker, as Kafka's future replicas are (KIP-113).

    <target>/<topic>-<partition>.<32 hex digits>-future/    a growing copy, segment by segment, byte for byte
    <target>/<topic>-<partition>/                           what it is renamed to when it has caught up

**Copying.** Sealed segments are copied and synced one after the other, then the active one for as long as it grows.
The log serves on from where it is. Retention goes on there too, and a copy whose segment has left is dropped; the
cleaner leaves a log alone that `is_moving`.

**Arriving.** Under the log's lock, so that no write runs: the last bytes, the small files, a sync of all of it, the
checkpoints of the target, the rename of the copy, the rename of the old folder to `-delete`. Then the same `Log` goes
on over there: what it has reserved and who waits for it never notice. A crash before the copy's rename leaves the old
folder, and a copy whose synced segments the next start takes up again; one between the two renames leaves the partition
twice, of which the loader takes the one that ends last (here: either); one behind them leaves the new folder.

Everything but the constructor blocks and runs on one thread of `LogMover`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from millstream.core.log import checkpoints
from millstream.core.log.damage import read_fully
from millstream.core.log.errors import LogDirectoryError
from millstream.core.log.rebuild import unlink_files
from millstream.core.log.segment import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    Segment,
    base_offset_of,
    file_stem,
)
from millstream.core.log.topic_partition import DELETE_SUFFIX, FUTURE_SUFFIX, STRAY_SUFFIX
from millstream.core.records import ROW_LAST_OFFSET, ROW_WIDTH, check_batches, new_rows

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.log import Log

CHUNK_SIZE_BYTES: Final = 2 << 20
# How much may be left to copy while writes wait.
LAST_SIZE_BYTES_MAX: Final = 1 << 20
_ROWS_COUNT: Final = 4096
_DERIVED_SUFFIXES: Final = (INDEX_SUFFIX, TIME_INDEX_SUFFIX, TRANSACTION_INDEX_SUFFIX, SNAPSHOT_SUFFIX)

_logger = logging.getLogger(__name__)


class MoveEndedError(Exception):
    """The move is over before it arrived: cancelled, or its partition or a directory has gone."""


class _Copy:
    """One segment's copy: how much of it there is, and whether that is all, and synced."""

    __slots__ = ("fd", "index_sizes", "is_complete", "is_plain", "size_bytes")

    def __init__(self, size_bytes: int = 0, *, is_complete: bool = False) -> None:
        self.size_bytes = size_bytes
        self.is_complete = is_complete
        # Whether its batches are followed: not behind damage, which is copied as it is.
        self.is_plain = True
        # Of the offset index and the time index, as they were copied.
        self.index_sizes = (0, 0)
        self.fd = -1


class FutureLog:
    """The copy of `log` that is made in `directory`; see the module's text.

    States: COPYING -> ARRIVED (arrive: the log lies in the new directory) | ENDED (MoveEndedError; `drop` it).
    """

    def __init__(self, log: Log, directory: LogDirectory, path: str | None = None) -> None:
        """Name the copy; `path` where a start has found it half made. No I/O."""
        self.log = log
        self.directory = directory
        self.path = path or f"{directory.path}/{log.topic_partition.folder_with_suffix(FUTURE_SUFFIX)}"
        # Set by the event loop: the move is not wanted any more.
        self.is_cancelled = False
        # Offset behind the last batch of the copy. Moves up; the event loop reads it for DescribeLogDirs.
        self.log_end_offset = log.log_start_offset
        self._files = log.cache.files
        self._copies: dict[int, _Copy] = {}
        # The log's: where it has changed, the log was cut, and what was copied is no copy any more.
        self._truncation_count = log.truncation_count
        self._buffer = memoryview(b"")
        self._rows = new_rows(_ROWS_COUNT)

    def __repr__(self) -> str:
        return f"<FutureLog {self.path} ..{self.log_end_offset}>"

    @property
    def size_bytes(self) -> int:
        """Bytes of batches copied so far."""
        return sum(copy.size_bytes for copy in self._copies.copy().values())

    def open(self) -> None:
        """Make the folder, or take up what a start has found in it: the synced copies, which are all but the last.

        Raises MoveEndedError, LogDirectoryError.
        """
        self._check()
        with self.log.lock:
            pass  # a cleaning that was about to replace segments has done so; none does from now on (`is_moving`)
        self._buffer = memoryview(bytearray(CHUNK_SIZE_BYTES))
        with self._target_errors():
            self._files.make_directory(self.path)
            self._take_up()
            if self.log.topic_id is not None:
                metadata = checkpoints.encode_partition_metadata(self.log.topic_id)
                self._files.write_atomically(f"{self.path}/{checkpoints.PARTITION_METADATA}", metadata)
            self._files.sync_directory(self.directory.path)

    def is_over(self) -> bool:
        """Whether there is no use in going on: it was cancelled, or its partition deleted."""
        return self.is_cancelled or self.log.retired is not None

    def copy_some(self, take: Callable[[int], object]) -> bool:
        """Copy one piece; False where nothing is left that is written. `take` is told the bytes, and may block.

        Raises MoveEndedError, LogDirectoryError.
        """
        self._check()
        log = self.log
        segments = log.segments.items
        if log.truncation_count != self._truncation_count:
            self._truncation_count = log.truncation_count
            self._discard(self._copies.keys())
        self._discard(self._copies.keys() - {segment.base_offset for segment in segments})
        for segment, following in zip(segments, (*segments[1:], None), strict=True):
            copy = self._copies.get(segment.base_offset)
            if copy is not None and copy.is_complete:
                continue
            try:
                if copy is None:
                    copy = self._begin(segment)
                if copy.size_bytes < segment.size_bytes:
                    take(self._copy_piece(segment, copy))
                    return True
                if following is not None:
                    self._complete(segment, copy, following.base_offset)
                    return True
            except FileNotFoundError:
                if log.holds(segment):
                    raise
                return True  # retention was faster
        return False

    def arrive(self, arrival: Callable[[Log, LogDirectory], AbstractContextManager[None]]) -> str | None:
        """Put the copy in the log's place; returns the renamed old folder, to be unlinked later.

        `arrival` (LogManager's) writes the checkpoints, and holds them until the log lies there.
        None where more has to be copied first. Raises MoveEndedError, LogDirectoryError: the log is where it was.
        """
        self._check()
        log = self.log
        self._sync_last()
        with log.lock:
            self._check()
            segments = log.segments.items
            if not self._is_near(segments):
                return None
            active = segments[-1]
            while self._copies[active.base_offset].size_bytes < active.size_bytes:
                self._copy_piece(active, self._copies[active.base_offset])
            if not active.index_is_lost:
                with log.storage_errors("writing the indexes of"):
                    active.store_tails()
            last = self._copies[active.base_offset]
            try:
                self._complete(active, last, log.log_end_offset)
                return self._change_places(segments, arrival)
            except LogDirectoryError:
                last.is_complete = False  # what is appended until the next try is missing
                raise

    def drop(self) -> str | None:
        """Give the copy up; returns the renamed folder, to be unlinked; None where there is none or its disk fails."""
        self.close()
        renamed = f"{self.directory.path}/{self.log.topic_partition.folder_with_suffix(DELETE_SUFFIX)}"
        if self.directory.offline_reason is not None or not self.path.endswith(FUTURE_SUFFIX):
            return None
        try:
            self._files.rename(self.path, renamed)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.directory.failed(error, f"renaming {self.path}")
            return None
        return renamed

    # Helpers.

    def _change_places(
        self,
        segments: Sequence[Segment],
        arrival: Callable[[Log, LogDirectory], AbstractContextManager[None]],
    ) -> str | None:
        log, target = self.log, self.directory
        final = f"{target.path}/{log.topic_partition}"
        with self._target_errors():
            self._write_small_files()
            if self._files.exists(final):
                stray = f"{target.path}/{log.topic_partition.folder_with_suffix(STRAY_SUFFIX)}"
                _logger.error("%s belongs to no topic; it is kept as %s", final, stray)
                self._files.rename(final, stray)
            with arrival(log, target):
                self._files.rename(self.path, final)
                self.path = final
                try:
                    self._files.sync_directory(target.path)
                except OSError as error:  # whether it is there is not known: nothing more is done with that disk
                    raise target.failed(error, f"renaming {final}", always_offline=True) from error
                return self._take_over(final, segments)

    def _check(self) -> None:
        log = self.log
        if self.is_cancelled:
            raise MoveEndedError("it is not wanted any more")
        if log.retired is not None:
            raise MoveEndedError(log.retired.message)
        for directory in (self.directory, log.directory):
            if directory.offline_reason is not None:
                raise MoveEndedError(f"{directory.path} is offline: {directory.offline_reason}")

    @contextmanager
    def _target_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.directory.failed(error, f"copying {self.log.path} to {self.path}") from error

    def _take_up(self) -> None:
        names = [name for name, _ in self._files.list_names(self.path)]
        bases = sorted(
            base for name in names if name.endswith(LOG_SUFFIX) and (base := base_offset_of(name)) is not None
        )
        segments = {segment.base_offset: (segment, behind) for segment, behind in pairwise(self.log.segments.items)}
        for base in bases[:-1]:
            segment, following = segments.get(base, (None, None))
            # What was not synced may have been lost meanwhile, and other batches written in its place.
            if segment is None or following is None or following.base_offset > self.log.flushed_offset:
                break
            if self._files.stat(file_stem(self.path, base) + LOG_SUFFIX).st_size != segment.size_bytes:
                break
            copy = _Copy(segment.size_bytes, is_complete=True)
            copy.index_sizes = self._size(base, INDEX_SUFFIX), self._size(base, TIME_INDEX_SUFFIX)
            self._copies[base] = copy
            self.log_end_offset = following.base_offset
        for name in names:
            if base_offset_of(name) not in self._copies:
                self._files.unlink(f"{self.path}/{name}")
        if self._copies:
            _logger.info("%s: %d segments were copied before the restart", self.path, len(self._copies))

    def _size(self, base_offset: int, suffix: str) -> int:
        path = file_stem(self.path, base_offset) + suffix
        return self._files.stat(path).st_size if self._files.exists(path) else 0

    def _begin(self, segment: Segment) -> _Copy:
        copy = _Copy()
        with self._target_errors():
            path = file_stem(self.path, segment.base_offset) + LOG_SUFFIX
            copy.fd = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._copies[segment.base_offset] = copy
        return copy

    def _copy_piece(self, segment: Segment, copy: _Copy) -> int:
        size_bytes = min(segment.size_bytes - copy.size_bytes, CHUNK_SIZE_BYTES)
        with self._source_errors(segment):
            opened = segment.files()
            data = read_fully(self._files, opened.log_fd, self._buffer[:size_bytes], copy.size_bytes)
        if not data:
            raise self.log.failed(OSError(5, "the file is shorter than it was"), f"copying {segment.stem}")
        if copy.is_plain:
            data = self._follow(segment, copy, data)
        with self._target_errors():
            self._files.write_all(self._fd(segment.base_offset, copy), data, copy.size_bytes)
        copy.size_bytes += len(data)
        return len(data)

    def _follow(self, segment: Segment, copy: _Copy, data: memoryview) -> memoryview:
        # Whole batches alone, so that it is known at which offset the copy ends.
        count, stopped, _ = check_batches(data, 0, len(data), segment.base_offset, self._rows, False)
        if not count:
            copy.is_plain = False  # damage, or a batch larger than a piece
            return data
        self.log_end_offset = max(self.log_end_offset, self._rows[(count - 1) * ROW_WIDTH + ROW_LAST_OFFSET] + 1)
        return data[:stopped]

    def _fd(self, base_offset: int, copy: _Copy) -> int:
        if copy.fd < 0:  # it was complete, but the move could not end
            copy.fd = self._files.open(file_stem(self.path, base_offset) + LOG_SUFFIX, os.O_RDWR)
        return copy.fd

    def _complete(self, segment: Segment, copy: _Copy, end_offset: int) -> None:
        # The indexes as they are: read under the lock, since a search that finds one wrong makes it again.
        found: dict[str, bytes] = {}
        with self._source_errors(segment), self.log.lock:
            if segment not in self.log.segments.items:
                return
            for suffix in _DERIVED_SUFFIXES:
                if self._files.exists(segment.stem + suffix):
                    found[suffix] = self._files.read_bytes(segment.stem + suffix)
            index_sizes = segment.index_bytes, segment.time_index_bytes
        sizes = dict(zip((INDEX_SUFFIX, TIME_INDEX_SUFFIX), index_sizes, strict=True))
        stem = file_stem(self.path, segment.base_offset)
        with self._target_errors():
            for suffix, data in found.items():
                self._files.write_synced(stem + suffix, data[: sizes.get(suffix, len(data))])
            self._files.fsync(self._fd(segment.base_offset, copy))
            fd, copy.fd = copy.fd, -1
            self._files.close(fd)
            self._files.sync_directory(self.path)
        copy.index_sizes = index_sizes
        copy.is_complete = True
        self.log_end_offset = max(self.log_end_offset, end_offset)

    @contextmanager
    def _source_errors(self, segment: Segment) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if self.log.holds(segment):
                raise self.log.failed(OSError(5, "a file of it is gone"), f"copying {segment.stem}") from None
            raise
        except OSError as error:
            raise self.log.failed(error, f"copying {segment.stem}") from error

    def _discard(self, bases: Iterable[int]) -> None:
        with self._target_errors():
            for base in list(bases):
                copy = self._copies.pop(base)
                if copy.fd >= 0:
                    self._files.close(copy.fd)
                unlink_files(self._files, file_stem(self.path, base), (*reversed(SEGMENT_SUFFIXES), SNAPSHOT_SUFFIX))

    def _sync_last(self) -> None:
        # So that little is left to be synced while writes wait.
        with self._target_errors():
            for copy in self._copies.values():
                if copy.fd >= 0:
                    self._files.fdatasync(copy.fd)

    def _is_near(self, segments: Sequence[Segment]) -> bool:
        was_cut = self.log.truncation_count != self._truncation_count
        if was_cut or self._copies.keys() != {each.base_offset for each in segments}:
            return False
        *sealed, active = segments
        behind = active.size_bytes - self._copies[active.base_offset].size_bytes
        return 0 <= behind <= LAST_SIZE_BYTES_MAX and all(self._copies[each.base_offset].is_complete for each in sealed)

    def _write_small_files(self) -> None:
        log, files = self.log, self._files
        with log.storage_errors("copying the snapshots of"):
            names = [name for name, _ in files.list_names(log.path) if name.endswith(SNAPSHOT_SUFFIX)]
            missing = [name for name in names if not files.exists(f"{self.path}/{name}")]
            found = {name: files.read_bytes(f"{log.path}/{name}") for name in missing}
        for name, data in found.items():
            files.write_synced(f"{self.path}/{name}", data)
        epochs = checkpoints.encode_leader_epochs(log.leader_epochs.entries)
        files.write_atomically(f"{self.path}/{checkpoints.LEADER_EPOCH}", epochs)

    def _take_over(self, path: str, old: Sequence[Segment]) -> str | None:
        log, source = self.log, self.log.directory
        old_path = log.path
        renamed = f"{source.path}/{log.topic_partition.folder_with_suffix(DELETE_SUFFIX)}"
        doomed: str | None = renamed
        failure: OSError | None = None
        try:
            self._files.rename(old_path, renamed)
            self._files.sync_directory(source.path)
        except OSError as error:  # the log has moved all the same; a start would find it twice, and take either
            failure, doomed = error, None
        moved = [_moved(log, segment, path, self._copies[segment.base_offset].index_sizes) for segment in old]
        log.relocate(self.directory, path, moved)
        # Only now, since who hears of it looks where the logs are.
        if failure is not None:
            source.failed(failure, f"renaming {old_path}")
        return doomed

    def close(self) -> None:
        """Let go of the copy's files."""
        for copy in self._copies.values():
            if copy.fd >= 0:
                fd, copy.fd = copy.fd, -1
                self._files.close(fd)
        self._buffer = memoryview(b"")


def _moved(log: Log, old: Segment, path: str, index_sizes: tuple[int, int]) -> Segment:
    segment = Segment(log.cache, path, old.base_offset, created_ms=old.created_ms)
    segment.size_bytes = old.size_bytes
    segment.index_bytes, segment.time_index_bytes = old.index_bytes, old.time_index_bytes
    if old.index_is_lost or index_sizes != (old.index_bytes, old.time_index_bytes):
        # A full disk took them, or they were made again after they were copied: made again here, where there is room.
        segment.index_is_lost, segment.index_bytes, segment.time_index_bytes = True, 0, 0
    segment.transaction_bytes = old.transaction_bytes
    segment.max_timestamp, segment.max_timestamp_offset = old.max_timestamp, old.max_timestamp_offset
    segment.first_timestamp = old.first_timestamp
    segment.modified_ms = old.modified_ms
    segment.bytes_since_index = old.bytes_since_index
    segment.offset_index, segment.time_index = old.offset_index, old.time_index
    return segment
