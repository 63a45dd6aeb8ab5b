"""The start of one log directory: its clean-shutdown mark, its checkpoints, and the folders of its partitions.

The mark is read, then removed at once, so that a crash while loading counts as unclean. Folders ending in `-delete` are
unlinked in the background. Of the others the metadata says whose they are (`OwnerOf`): a log is opened, what is left of
a deleted topic is deleted, and what no metadata knows becomes `-stray` and is kept.

A log that the disk's shortage keeps from being opened (it is full) takes nothing offline: it stays where it is, in
`unloaded`, and is tried again whenever the broker asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.log import checkpoints
from millstream.core.log.config import LogConfig
from millstream.core.log.errors import SHORTAGE_ERRNOS, LogDirectoryError
from millstream.core.log.loader import LogLoader
from millstream.core.log.topic_partition import DELETE_SUFFIX, FUTURE_SUFFIX, STRAY_SUFFIX, TopicPartition

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.log import Log
    from millstream.core.log.open_segments import OpenSegments

# Kafka's own metadata log, in a directory that is adopted: read by `cluster.adoption`, and left alone here.
_CLUSTER_METADATA: Final = TopicPartition("__cluster_metadata", 0)

_logger = logging.getLogger(__name__)


class Owner(NamedTuple):
    """The topic that a folder belongs to; `topic_id` None where only the folder itself knows."""

    topic_id: bytes | None
    config: LogConfig


class Unowned(Enum):
    """What becomes of a folder that belongs to no topic."""

    STRAY = "stray"  # nobody knows it
    DELETED = "deleted"  # its topic was deleted


# Whose folder that is, by its name and the topic id in it (None: it is lost).
OwnerOf = Callable[[TopicPartition, bytes | None], Owner | Unowned]


class DirectoryStart:
    """What the start learned of a directory. `plan` comes first; then `load` from one thread per loader."""

    def __init__(
        self,
        directory: LogDirectory,
        cache: OpenSegments,
        *,
        doom: Callable[[str], object],
        note_future: Callable[[LogDirectory, str], object],
        producer_count_max: int,
    ) -> None:
        """`doom` takes over a folder that is to be unlinked, `note_future` the name of a copy on its way."""
        self.directory = directory
        self.unloaded: set[TopicPartition] = set()
        self._cache = cache
        self._files = cache.files
        self._doom = doom
        self._note_future = note_future
        self._producer_count_max = producer_count_max
        self._recovery_points: dict[TopicPartition, int] = {}
        self._log_start_offsets: dict[TopicPartition, int] = {}
        self._first_dirty_offsets: dict[TopicPartition, int] = {}

    def plan(self) -> list[tuple[TopicPartition, str]]:
        """Read mark and checkpoints; return the partitions' folders. Blocks. Raises OSError."""
        directory = self.directory
        mark = f"{directory.path}/{checkpoints.CLEAN_SHUTDOWN}"
        directory.was_clean = self._files.exists(mark)
        if directory.was_clean:
            directory.broker_epoch = checkpoints.decode_clean_shutdown(self._files.read_bytes(mark))
            self._files.unlink(mark)
            self._files.sync_directory(directory.path)
        self._recovery_points = directory.checkpoints.read(checkpoints.RECOVERY_POINT)
        self._log_start_offsets = directory.checkpoints.read(checkpoints.LOG_START_OFFSET)
        self._first_dirty_offsets = directory.checkpoints.read(checkpoints.CLEANER_OFFSET)
        directory.high_watermarks = directory.checkpoints.read(checkpoints.REPLICATION_OFFSET)
        folders = []
        for name, is_folder in self._files.list_names(directory.path):
            if is_folder and name.endswith(FUTURE_SUFFIX):
                self._note_future(directory, name)
            if not is_folder or name.endswith((STRAY_SUFFIX, FUTURE_SUFFIX)):
                continue
            path = f"{directory.path}/{name}"
            if name.endswith(DELETE_SUFFIX):
                self._doom(path)
            elif (topic_partition := TopicPartition.from_folder(name)) not in (None, _CLUSTER_METADATA):
                folders.append((topic_partition, path))
        if not directory.was_clean and folders:
            _logger.warning(
                "%s was not closed in good order: %d partitions are recovered", directory.path, len(folders)
            )
        return sorted(folders)

    def loader(self, now_ms: int) -> LogLoader:
        """Return a loader for one thread."""
        return LogLoader(
            self.directory,
            self._cache,
            now_ms=now_ms,
            clean=self.directory.was_clean,
            recovery_points=self._recovery_points,
            log_start_offsets=self._log_start_offsets,
            first_dirty_offsets=self._first_dirty_offsets,
            producer_count_max=self._producer_count_max,
        )

    def load(self, loader: LogLoader, topic_partition: TopicPartition, path: str, owner_of: OwnerOf) -> Log | None:
        """Open the log in a folder; None where it belongs to no topic or the disk refused, which has been said."""
        try:
            topic_id = loader.topic_id(path)
            owner = owner_of(topic_partition, topic_id)
            if owner is Unowned.DELETED:
                self.delete(path, topic_partition)
                return None
            if owner is Unowned.STRAY:
                self.set_aside(path, topic_partition, "no metadata knows it")
                return None
            assert isinstance(owner, Owner), f"{owner} is whose folder {path} is"
            return self.open(loader, topic_partition, path, owner)
        except LogDirectoryError:
            return None  # said and marked already
        except OSError as error:
            self.directory.failed(error, f"loading {path}", always_offline=error.errno not in SHORTAGE_ERRNOS)
            self.unloaded.add(topic_partition)
            return None

    def open(self, loader: LogLoader, topic_partition: TopicPartition, path: str, owner: Owner) -> Log:
        """Open the log of a known topic. Blocks. Raises OSError, LogDirectoryError."""
        log = loader.load(topic_partition, path, owner.config)
        if log.topic_id is None and owner.topic_id is not None:
            log.assign_topic_id(owner.topic_id)
        # The one on disk may be of an earlier topic of that name, or of a log that has lost its end.
        high_watermark = self.directory.high_watermarks.get(topic_partition)
        if high_watermark is not None:
            within = min(max(high_watermark, log.log_start_offset), log.log_end_offset)
            self.directory.high_watermarks[topic_partition] = within
        return log

    def delete(self, path: str, topic_partition: TopicPartition) -> None:
        """Finish a deletion that a crash cut short."""
        _logger.info("%s: its topic was deleted; it goes too", path)
        doomed = f"{self.directory.path}/{topic_partition.folder_with_suffix(DELETE_SUFFIX)}"
        self._files.rename(path, doomed)
        self._doom(doomed)

    def set_aside(self, path: str, topic_partition: TopicPartition, why: str) -> None:
        """Rename a folder so that nobody serves or deletes it. Raises OSError."""
        folder = topic_partition.folder_with_suffix(STRAY_SUFFIX)
        _logger.error("%s: %s; it is kept as %s and not served", path, why, folder)
        self._files.rename(path, f"{self.directory.path}/{folder}")
