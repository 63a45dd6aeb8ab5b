"""Bytes of a segment that were checked and go to a socket from the page cache, without a copy in this process.

A reader that sends on needs the bytes in memory only for as long as their CRCs are computed: they are read into a
ReadBuffer, memory that all reads of one thread share, and what is kept of them is a FileRegion. It holds the
`OpenSegment`, so its descriptor outlives eviction and deletion; it is not safe from a truncation, so it is to be sent,
or read into memory, before its owner lets anybody else run.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from millstream.core.log.errors import LogDirectoryError
    from millstream.core.log.files import FileSystem
    from millstream.core.log.open_segments import OpenSegment

# Below this a copy is cheaper than a system call of its own.
REGION_SIZE_BYTES_MIN: Final = 64 * 1024
# What a ReadBuffer keeps; a larger read gets memory of its own. A batch of the default `max.message.bytes` fits well.
READ_BUFFER_SIZE_BYTES_MAX: Final = 4 << 20


class ReadBuffer:
    """Memory whose pages are there already: fresh ones cost as much as the copy into them. Owned by one thread."""

    __slots__ = ("_memory",)

    def __init__(self) -> None:
        self._memory = memoryview(b"")

    def view(self, size_bytes: int) -> memoryview:
        """Return writable memory of this size; it is good until the next call."""
        if size_bytes > len(self._memory):
            if size_bytes > READ_BUFFER_SIZE_BYTES_MAX:
                return memoryview(bytearray(size_bytes))
            self._memory = memoryview(bytearray(1 << (size_bytes - 1).bit_length()))
        return self._memory[:size_bytes]


class FileRegion:
    """`len(region)` bytes of an open segment. Used by one thread."""

    __slots__ = ("_failed", "_files", "_opened", "_position", "_size_bytes")

    def __init__(
        self,
        files: FileSystem,
        opened: OpenSegment,
        position: int,
        size_bytes: int,
        failed: Callable[[OSError, str], LogDirectoryError],
    ) -> None:
        """`failed` makes of an error what it means for the log's directory."""
        self._files = files
        self._opened = opened
        self._position = position
        self._size_bytes = size_bytes
        self._failed = failed

    def __len__(self) -> int:
        return self._size_bytes

    def send(self, socket_fd: int) -> int:
        """Send from the start on what the socket takes at once; return how many bytes that was.

        0 where it takes nothing, where its peer is gone and where the file cannot be sent so: what to make of that
        shows when the rest is read and written.
        """
        try:
            return self._files.sendfile(socket_fd, self._opened.log_fd, self._position, self._size_bytes)
        except OSError:
            return 0

    def read(self, start: int = 0) -> memoryview:
        """Return the bytes from `start` on in memory. Raises LogDirectoryError."""
        data = memoryview(bytearray(self._size_bytes - start))
        done = 0
        try:
            while done < len(data):
                more = self._files.preadv(self._opened.log_fd, [data[done:]], self._position + start + done)
                if not more:
                    raise OSError(errno.EIO, f"the file ends {len(data) - done} bytes early")  # noqa: TRY301  as the system's own
                done += more
        except OSError as error:
            raise self._failed(error, "reading a segment again to send it") from error
        return data
