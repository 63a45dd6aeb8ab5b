"""The sparse time index of one segment (`.timeindex`): from a timestamp to an offset at which to start looking.

Layout: entries of 12 bytes, big-endian, ascending in both fields, and nothing else in the file of a sealed segment.

    timestamp        int64   the largest timestamp of the segment so far
    relative_offset  int32   last offset of the batch that brought it, less the segment's base offset

An entry says: every record with a larger timestamp lies behind that offset. One is written with each entry of the
offset index, where the largest timestamp has grown since, and one when the segment is sealed, so that the last entry
of a sealed segment names its largest timestamp. Kept and owned as `offset_index` says.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from typing import Final

from millstream.core.log.sparse_index import Read, last_at_or_before

ENTRY: Final = struct.Struct(">qI")
ENTRY_SIZE: Final = ENTRY.size

assert ENTRY_SIZE == 12, ENTRY_SIZE


class TimeIndex:
    """The entries of one segment: `stored_count` in the file, the newest ones in memory."""

    __slots__ = ("_tail", "base_offset", "last_timestamp", "stored_count")

    def __init__(self, base_offset: int, stored_count: int, last_timestamp: int) -> None:
        self.base_offset = base_offset
        self.stored_count = stored_count
        # Timestamp of the last entry, -1 without one. An entry is only added above it.
        self.last_timestamp = last_timestamp
        self._tail = (array("q"), array("I"))

    def __len__(self) -> int:
        return self.stored_count + len(self._tail[0])

    @property
    def tail_count(self) -> int:
        """Entries that are not in the file yet."""
        return len(self._tail[0])

    def maybe_append(self, timestamp: int, offset: int) -> None:
        """Add an entry where `timestamp` has grown since the last one."""
        if timestamp > self.last_timestamp:
            timestamps, offsets = self._tail
            offsets.append(offset - self.base_offset)
            timestamps.append(timestamp)
            self.last_timestamp = timestamp

    def lookup(self, timestamp: int, read: Read) -> int:
        """Return the offset of the last entry at or before `timestamp`; the base offset where there is none."""
        timestamps, offsets = self._tail
        if timestamps and timestamp >= timestamps[0]:
            return self.base_offset + offsets[bisect_right(timestamps, timestamp) - 1]
        found = last_at_or_before(read, ENTRY, self.stored_count, timestamp)
        return self.base_offset + (found[1] if found else 0)

    def tail_bytes(self) -> bytes:
        """Return the tail in the file's form."""
        return b"".join(map(ENTRY.pack, *self._tail))

    def tail_stored(self) -> None:
        """The tail has been written behind the stored entries."""
        self.stored_count += self.tail_count
        self._tail = (array("q"), array("I"))
