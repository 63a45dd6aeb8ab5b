"""Where logs are to lie: the directory that was named for a partition before it came, and copies that a start found.

A name is kept in memory only, as Kafka does; a partition that is created takes it. The copies (`-future` folders, see
`future_log`) go on to their directories once the broker runs. One without a log that serves its partition is kept as
`-stray`, unless a directory is offline where that log may be; one that lies beside its log has nothing to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from millstream.core.log.loader import read_topic_id
from millstream.core.log.topic_partition import DELETE_SUFFIX, FUTURE_SUFFIX, STRAY_SUFFIX, TopicPartition

if TYPE_CHECKING:
    from millstream.core.log.directory import LogDirectory
    from millstream.core.log.files import FileSystem
    from millstream.core.log.log import Log

# Partitions that do not exist and for which a directory is remembered; the oldest give way.
PREFERRED_COUNT_MAX: Final = 10_000

_logger = logging.getLogger(__name__)


class FoundFuture(NamedTuple):
    """A copy that was being made when the broker stopped."""

    log: Log
    directory: LogDirectory
    path: str


class Placement:
    """See the module's text. Any thread may `prefer` and `take_preferred`; the rest is the start's."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._preferred: dict[TopicPartition, LogDirectory] = {}
        self._folders: list[tuple[LogDirectory, str]] = []
        # Copies to go on with; LogMover takes them.
        self.futures: list[FoundFuture] = []

    def prefer(self, topic_partition: TopicPartition, directory: LogDirectory) -> None:
        """Remember where a partition is to lie that is not there yet."""
        with self._lock:
            self._preferred.pop(topic_partition, None)
            self._preferred[topic_partition] = directory
            if len(self._preferred) > PREFERRED_COUNT_MAX:
                del self._preferred[next(iter(self._preferred))]

    def take_preferred(self, topic_partition: TopicPartition) -> LogDirectory | None:
        """Return the directory named for a partition that is being created, if it works."""
        with self._lock:
            directory = self._preferred.pop(topic_partition, None)
        return directory if directory is not None and directory.offline_reason is None else None

    def note_folder(self, directory: LogDirectory, name: str) -> None:
        """The start has met a folder that ends in `-future`."""
        self._folders.append((directory, f"{directory.path}/{name}"))

    def sort_out(self, logs: Mapping[TopicPartition, Log], *, is_complete: bool, doom: Callable[[str], object]) -> None:
        """Find the logs that the copies are of, now that all are loaded. Blocks.

        `is_complete`: every directory works. `doom` takes over a folder that is to be unlinked.
        """
        by_id = {(log.topic_id, tp.partition): log for tp, log in logs.items()}
        taken: set[TopicPartition] = set()
        for directory, path in self._folders:
            if directory.offline_reason is not None:
                continue
            named = path.rpartition("/")[2].removesuffix(FUTURE_SUFFIX).rpartition(".")[0]
            tp = TopicPartition.from_folder(named)
            try:
                log: Log | None = None
                if tp is not None:
                    topic_id = read_topic_id(self._files, path)
                    log = logs.get(tp) if topic_id is None else by_id.get((topic_id, tp.partition))
                if log is None and not is_complete:
                    continue  # what it is a copy of may come back
                if log is None:
                    stray = path.removesuffix(FUTURE_SUFFIX) + STRAY_SUFFIX
                    _logger.error("%s is a copy of a log that is not there; it is kept as %s", path, stray)
                    self._files.rename(path, stray)
                elif log.directory is directory or log.topic_partition in taken:
                    renamed = path.removesuffix(FUTURE_SUFFIX) + DELETE_SUFFIX
                    self._files.rename(path, renamed)
                    doom(renamed)
                else:
                    taken.add(log.topic_partition)
                    log.is_moving = True
                    self.futures.append(FoundFuture(log, directory, path))
            except OSError as error:
                directory.failed(error, f"looking at {path}")
        self._folders.clear()
