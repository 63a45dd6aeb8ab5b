"""Reading a sealed segment for the cleaner: chunks of whole batches, CRCs checked, with a row per batch.

A chunk is as large as the read buffer, larger only for a batch that does not fit (max.message.bytes bounds those). At
most ROWS_MAX batches come at once, so that what Python does with the rows stays short. The file is held open for the
whole walk: a segment that is replaced or deleted meanwhile can still be read to its end.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from millstream.core.log.cleaner.errors import CleaningAbortedError, UncleanableError
from millstream.core.log.damage import announced_size, read_fully
from millstream.core.log.files import FileSystem
from millstream.core.log.segment import LOG_SUFFIX, Segment
from millstream.core.records import ROW_LAST_OFFSET, ROW_WIDTH, StopReason, check_batches, new_rows

ROWS_MAX: Final = 1024

_SAYS: Final = {
    StopReason.TRUNCATED: "is cut off by the end of the segment",
    StopReason.BAD_LENGTH: "is shorter than a header",
    StopReason.BAD_MAGIC: "is none of magic 2",
    StopReason.BAD_CRC: "fails its CRC",
    StopReason.BAD_OFFSET: "has offsets out of order",
}


class Batches(NamedTuple):
    """Some batches of a segment: rows of `records.scan`, whose positions count from the start of `data`."""

    data: memoryview
    rows: array[int]
    count: int  # type: ignore[assignment]  # hides tuple.count
    file_position: int


class ReadBuffer:
    """What one cleaner thread reads into, again and again."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._memory = memoryview(bytearray(size_bytes))
        self.rows = new_rows(ROWS_MAX)

    def __len__(self) -> int:
        return len(self._memory)

    def grow(self, size_bytes: int) -> None:
        """Make room for one batch of that size."""
        self._memory = memoryview(bytearray(size_bytes))

    def shrink(self) -> None:
        """Give back what a large batch took."""
        if len(self._memory) > self._size_bytes:
            self._memory = memoryview(bytearray(self._size_bytes))

    def view(self, size_bytes: int) -> memoryview:
        return self._memory[:size_bytes]


def walk_segment(
    files: FileSystem, segment: Segment, buffer: ReadBuffer, on_read: Callable[[int], object]
) -> Iterator[Batches]:
    """Yield all batches of a sealed segment; each is valid until the next is asked for.

    `on_read(bytes)` is called behind each read; it may wait, or raise CleaningAbortedError. Raises UncleanableError,
    OSErrors as the system says.
    """
    opened = segment.files()
    size, position, next_offset = segment.size_bytes, 0, segment.base_offset
    while position < size:
        data = read_fully(files, opened.log_fd, buffer.view(min(len(buffer), size - position)), position)
        if not data:
            raise CleaningAbortedError(f"{segment.stem}{LOG_SUFFIX} was cut")
        on_read(len(data))
        at, reason = 0, StopReason.ROWS_FULL
        while reason is StopReason.ROWS_FULL:
            count, stopped, number = check_batches(data, at, len(data), next_offset, buffer.rows, True)
            reason = StopReason(number)
            if count:
                next_offset = buffer.rows[(count - 1) * ROW_WIDTH + ROW_LAST_OFFSET] + 1
                yield Batches(data, buffer.rows, count, position)
            at = stopped
        position += at
        if reason is StopReason.END:
            continue
        needed = announced_size(data[at:])
        if reason is StopReason.TRUNCATED and position + needed <= size and (at or needed > len(data)):
            if needed > len(buffer):
                buffer.grow(needed)
            continue
        raise UncleanableError(segment.stem + LOG_SUFFIX, position, next_offset, _SAYS[reason])
