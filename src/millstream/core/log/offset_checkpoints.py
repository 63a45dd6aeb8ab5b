"""The offset checkpoints of one log directory: what they said at the start, what they say now, and when to write them.

Any thread may write one; `lock` is held from looking at the offsets on, so that an older look never overwrites a newer
one. Truncation lowers a recovery point: before anything is appended behind it, the one on disk must follow, or a power
cut would find unsynced batches where the checkpoint promises synced ones. `note_truncation` remembers that, and
`follow_truncations` writes it for all logs of the directory at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from millstream.core.log.checkpoints import (
    CLEANER_OFFSET,
    LOG_START_OFFSET,
    RECOVERY_POINT,
    decode_offsets,
    encode_offsets,
)
from millstream.core.log.errors import CorruptCheckpointError
from millstream.core.log.files import FileSystem
from millstream.core.log.topic_partition import TopicPartition

_logger = logging.getLogger(__name__)


class OffsetCheckpoints:
    """The offset checkpoints in the folder `path`; see the module's text."""

    def __init__(self, files: FileSystem, path: str) -> None:
        self._files = files
        self._path = path
        self.lock = threading.RLock()
        # What each file holds now, by its name; missing where that is not known.
        self._on_disk: dict[str, dict[TopicPartition, int]] = {}
        # Where logs were cut since their recovery points were written.
        self._truncated: dict[TopicPartition, int] = {}

    def read(self, name: str) -> dict[TopicPartition, int]:
        """Read a checkpoint; what cannot be read is taken as empty. Blocks."""
        path = f"{self._path}/{name}"
        if not self._files.exists(path):
            return {}
        try:
            offsets = decode_offsets(self._files.read_bytes(path))
        except CorruptCheckpointError as error:
            _logger.warning("%s: %s; it is taken as empty, so logs are recovered from further back", path, error)
            return {}
        with self.lock:
            self._on_disk[name] = offsets
        return dict(offsets)

    def on_disk(self, name: str, topic_partition: TopicPartition) -> int | None:
        """Return what the file says of a partition."""
        return self._on_disk.get(name, {}).get(topic_partition)

    def outlives(self, topic_partition: TopicPartition) -> bool:
        """Whether an offset of that partition that decides what a start reads or cleans is on disk and not simply 0."""
        return any(self.on_disk(name, topic_partition) for name in (RECOVERY_POINT, LOG_START_OFFSET, CLEANER_OFFSET))

    def write(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write a checkpoint that has changed. Blocks. Raises OSError."""
        with self.lock:
            if self._on_disk.get(name) != offsets:
                self._files.write_atomically(f"{self._path}/{name}", encode_offsets(offsets))
                self._on_disk[name] = dict(offsets)

    def note_truncation(self, topic_partition: TopicPartition, flushed_offset: int) -> None:
        """The log was cut, and what is synced of it ends here."""
        with self.lock:
            self._truncated[topic_partition] = min(flushed_offset, self._truncated.get(topic_partition, flushed_offset))

    def follow_truncations(self) -> None:
        """Lower the recovery points on disk of all logs that were cut. Blocks. Raises OSError."""
        with self.lock:
            now = self._on_disk.get(RECOVERY_POINT, {})
            lowered = {each: min(offset, now[each]) for each, offset in self._truncated.items() if each in now}
            self.write(RECOVERY_POINT, {**now, **lowered})
            self._truncated.clear()
