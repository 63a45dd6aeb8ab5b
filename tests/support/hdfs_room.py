"""Take the room of an HDFS away, and give it back, without writing it full.

A DataNode sets room aside for a whole block as soon as somebody writes to it: a file with one block of nearly all that
is left, which stays open, leaves no place for a block of anybody's.
"""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
from millstream.testing.hdfs import MiniHdfs
from millstream.testing.kafka import wait_until

_MB: Final = 1 << 20
BLOCK_BYTES: Final = 2048 * _MB
"""What the files of a job have to ask for: others may take and give back less than that of the disk meanwhile."""
# A DataNode takes no block that leaves less than 1 GB.
_LEFT_BYTES: Final = 1280 * _MB
_ENOUGH_BYTES: Final = 6 * BLOCK_BYTES
_TIMEOUT_S: Final = 60.0
# A DataNode tells once a second what it has left.
_TOLD_S: Final = 3.0


class Room:
    """The room of an HDFS that a test may take away; what is taken is given back at the end of the block."""

    def __init__(self, hdfs: MiniHdfs) -> None:
        self._hdfs = hdfs
        self._taken = ExitStack()
        self._took_at = -_TOLD_S

    def __enter__(self) -> Self:
        wait_until(lambda: self._left() > _ENOUGH_BYTES, _TIMEOUT_S, "room on the disk of the DataNode")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._taken.close()

    def take(self) -> None:
        """From now on no block of BLOCK_BYTES has a place. Files that are open by then give theirs back."""
        wait_until(self._is_taken, _TIMEOUT_S, "the NameNode to know that nothing is left")

    def give_back(self) -> None:
        """There is room again."""
        self._taken.close()
        wait_until(lambda: self._left() > _ENOUGH_BYTES, _TIMEOUT_S, "the NameNode to know that there is room")

    def _is_taken(self) -> bool:
        left = self._left()
        if left >= BLOCK_BYTES and time.monotonic() - self._took_at > _TOLD_S:
            self._take(left - _LEFT_BYTES)
        return left < BLOCK_BYTES

    def _take(self, size_bytes: int) -> None:
        # Over HTTP, as there a DataNode writes, and sets aside what is asked for; for hdfs-native always 128 MB.
        settings = FileSystemSettings(block_size_bytes=size_bytes & -_MB)
        filesystem = open_filesystem(self._hdfs.webhdfs_uri, settings)
        self._taken.callback(filesystem.close)
        name = f"fills-the-disk-{time.monotonic_ns()}"
        file = filesystem.create(name)
        self._taken.callback(filesystem.delete, name)
        self._taken.callback(file.abandon)
        file.write(b"x" * (16 * _MB))
        self._took_at = time.monotonic()

    def _left(self) -> int:
        url = f"http://{self._hdfs.http_addresses[0]}/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo"
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            return int(json.load(answer)["beans"][0]["Free"])
