"""The name of one partition, and the folder that holds it: `<topic>-<partition>`, with Kafka's suffixes.

A folder that is being deleted is `<topic>-<partition>.<32 hex digits>-delete`, one that no metadata knows
`...-stray`, one being copied from another log directory `...-future`. The topic in a suffixed name may be cut short
(a file name is at most 255 bytes), so only `partition.metadata` inside says which topic it was.
"""

from __future__ import annotations

import uuid
from typing import Final, NamedTuple

DELETE_SUFFIX: Final = "-delete"
STRAY_SUFFIX: Final = "-stray"
FUTURE_SUFFIX: Final = "-future"
FILE_NAME_SIZE_BYTES_MAX: Final = 255
TOPIC_SIZE_BYTES_MAX: Final = 249


class TopicPartition(NamedTuple):
    """A topic's name and a partition's number."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"

    @classmethod
    def from_folder(cls, name: str) -> TopicPartition | None:
        """Return the partition whose folder is called `name`, or None where it is no partition's folder."""
        topic, dash, digits = name.rpartition("-")
        if not dash or not topic or not digits.isascii() or not digits.isdigit() or len(digits) > 10:
            return None
        partition = int(digits)
        if str(partition) != digits or partition >= 2**31:
            return None
        return cls(topic, partition)

    def folder_with_suffix(self, suffix: str) -> str:
        """Return a new unique folder name, `<topic>-<partition>.<unique id><suffix>`, the topic cut to fit."""
        tail = f"-{self.partition}.{uuid.uuid4().hex}{suffix}"
        return self.topic[: FILE_NAME_SIZE_BYTES_MAX - len(tail)] + tail
