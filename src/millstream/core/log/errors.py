"""What reading and writing a partition on disk can raise. All are KafkaErrors, so a handler can answer their code."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from millstream.core.wire import ErrorCode, KafkaError

# The operating system ran out of something that comes back: the operation is undone and refused, the disk is sound.
SHORTAGE_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})


class LogDirectoryError(KafkaError):
    """A disk refused an operation of this log; nothing acknowledged is lost.

    `shortage` tells a full disk or too few descriptors (the operation was undone, the directory serves on) from a
    failed directory (`LogDirectory.offline_reason` is set).
    """

    def __init__(self, message: str, *, shortage: bool = False) -> None:
        super().__init__(ErrorCode.KAFKA_STORAGE_ERROR, message)
        self.shortage = shortage


class SegmentReplacedError(FileNotFoundError):
    """Another has taken its place, cleaned or in another directory: look again in the log's segments."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOENT, "another segment has taken its place", path)


class OffsetOutOfRangeError(KafkaError):
    """The offset is before the log's start or behind the end that the reader may see."""

    def __init__(self, offset: int, log_start_offset: int, end_offset: int) -> None:
        super().__init__(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"offset {offset} is outside {log_start_offset}..{end_offset}; start from either end",
        )
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.end_offset = end_offset


class CorruptBatchError(KafkaError):
    """The batch at `offset` fails its checks. Reading from `next_offset` (None: unknown) steps over it."""

    def __init__(self, path: Path | str, position: int, offset: int, next_offset: int | None) -> None:
        step = "nothing behind it can be read" if next_offset is None else f"read on from offset {next_offset}"
        super().__init__(
            ErrorCode.CORRUPT_MESSAGE, f"{path}: the batch of offset {offset} at byte {position} is corrupt; {step}"
        )
        self.path = path
        self.position = position
        self.offset = offset
        self.next_offset = next_offset


class LogLockedError(Exception):
    """Another process uses the log directory."""


class InconsistentDirectoryError(Exception):
    """The log directory belongs to another cluster or node, or its `meta.properties` cannot be read."""


class CorruptCheckpointError(Exception):
    """A checkpoint file is not in its format; what it held must be found again or taken as its safe default."""
