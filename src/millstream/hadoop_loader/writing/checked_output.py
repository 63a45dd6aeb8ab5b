"""Bytes on their way to a file system: counted, and summed up by CRC-32C as they pass.

What was summed is what the writer made, so a checksum of the file read back later also covers the way to the disk. It
looks like a Python file, for pyarrow to write to. The file is made with its first byte: until then it costs nothing.
One thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from millstream.core._kernels.crc32c import crc32c

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import OutputFile


class CheckedOutput:
    """Writes to an OutputFile, which `close` leaves open: whoever made it syncs and closes it."""

    def __init__(self, create: Callable[[], OutputFile]) -> None:
        self._create = create
        self._file: OutputFile | None = None
        self.size_bytes = 0
        self._crc = 0
        self._is_abandoned = False
        self.closed = False

    def write(self, data: Any) -> int:
        """Append `data`, any buffer. Raises ValueError once it is abandoned: pyarrow's writers end files as they go."""
        if self._is_abandoned:
            raise ValueError("what was written is abandoned")
        view = memoryview(data).cast("B")
        if len(view):
            self._crc = crc32c(view, self._crc)
            if self._file is None:
                self._file = self._create()
            self._file.write(view)
            self.size_bytes += len(view)
        return len(view)

    @property
    def is_made(self) -> bool:
        """Whether there is a file yet."""
        return self._file is not None

    @property
    def file(self) -> OutputFile:
        """The file, once something was written."""
        assert self._file is not None, "nothing was written"
        return self._file

    def abandon(self, *, delete: bool = True) -> bool:
        """Stop writing, and try to delete what there is, if told so. Returns whether the file system answered."""
        self._is_abandoned = True
        return self._file is None or not delete or self._file.abandon()

    @property
    def checksum(self) -> str:
        """Of all that was written, as a StagedFile has it."""
        return f"crc32c:{self._crc:08x}"

    # What pyarrow asks of a file.

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.size_bytes

    def flush(self) -> None:
        """Do nothing: only a sync means anything to whoever reads."""

    def close(self) -> None:
        """End the writer's part."""
        self.closed = True

    def writable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is not."""
        return False

    def seekable(self) -> bool:
        """It is not."""
        return False
