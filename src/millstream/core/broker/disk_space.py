"""The free-disk watermark: below it a log directory takes no more records, and goes on by itself when there is room.

A file system filled to its last byte fails everything on it: indexes, checkpoints, metadata, the retention that would
make room. Refusing produce requests a little earlier keeps all of that working. `LogDirectory.read_only_reason` is set
here, on the event loop, and checked by the append path.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from millstream.core.log import LogDirectory

logger = logging.getLogger(__name__)

CHECK_INTERVAL_MS: Final = 1000
AUTOMATIC: Final = -1
_AUTOMATIC_BYTES_MAX: Final = 512 << 20
_AUTOMATIC_PERCENT: Final = 2
# Free space must pass the watermark by this much before records are taken again, or a full disk would flap.
_RECOVERY_PERCENT: Final = 110


class DiskSpace(NamedTuple):
    """Bytes of the file system that holds a log directory."""

    total_bytes: int
    usable_bytes: int


def disk_space(path: str) -> DiskSpace | None:
    """Ask the file system under `path`; None where it does not answer. Waits for the disk."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return DiskSpace(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


class DiskWatermark:
    """Watches the space of every log directory; owned by the event loop, asks the disks on a thread."""

    def __init__(
        self,
        directories: Sequence[LogDirectory],
        executor: Executor,
        *,
        free_bytes_min: Callable[[], int],
        measure: Callable[[str], DiskSpace | None] = disk_space,
    ) -> None:
        self._directories = directories
        self._executor = executor
        self._free_bytes_min = free_bytes_min
        self._measure = measure
        # The last answer of each directory's file system, by its path.
        self.spaces: dict[str, DiskSpace] = {}

    async def check(self) -> None:
        """Measure every online directory and set or take back its read-only state."""
        loop = asyncio.get_running_loop()
        for directory in self._directories:
            if directory.offline_reason is not None:
                self.spaces.pop(directory.path, None)
                continue
            space = await loop.run_in_executor(self._executor, self._measure, directory.path)
            if space is not None:
                self.spaces[directory.path] = space
                self._judge(directory, space)

    def _judge(self, directory: LogDirectory, space: DiskSpace) -> None:
        minimum = watermark(self._free_bytes_min(), space.total_bytes)
        if directory.read_only_reason is None:
            if space.usable_bytes < minimum:
                directory.read_only_reason = (
                    f"{directory.path} has {space.usable_bytes} bytes free, less than the {minimum} of "
                    "millstream.disk.free.min.bytes; free some space there"
                )
                logger.error("no more records are taken: %s", directory.read_only_reason)
        elif space.usable_bytes >= minimum * _RECOVERY_PERCENT // 100:
            directory.read_only_reason = None
            logger.warning("%s has room again; records are taken", directory.path)


def watermark(configured_bytes: int, total_bytes: int) -> int:
    """The free bytes a file system of this size must have; -1 picks a bound that suits small and large ones."""
    if configured_bytes == AUTOMATIC:
        return min(_AUTOMATIC_BYTES_MAX, total_bytes * _AUTOMATIC_PERCENT // 100)
    return configured_bytes
