"""The sparse offset index of one segment (`.index`): from an offset to a nearby position in the log file.

Layout: entries of 8 bytes, big-endian, ascending in both fields, and nothing else in the file of a sealed segment.

    relative_offset  int32   last offset of a batch, less the segment's base offset
    position         int32   where that batch starts in the `.log` file

An entry is due for the first batch that starts more than `index.interval.bytes` behind the last indexed one, so the
first batch never has one and no entry has position 0. Kafka preallocates an active index with zeros and maps it; here
the newest entries of an active segment wait in memory, at most TAIL_ENTRIES_MAX of them, and then go to the file in
one write. The index is derived data: what a crash loses of it, recovery makes again from the log.

Appended by whoever holds the log's write lock; looked up from any thread: an entry is complete before the count that
covers it grows, and a lookup reads the tail before the file, so that an entry is found in one or the other.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from typing import Final

from millstream.core.log.sparse_index import Read, last_at_or_before

ENTRY: Final = struct.Struct(">II")
ENTRY_SIZE: Final = ENTRY.size
RELATIVE_OFFSET_MAX: Final = 2**31 - 1  # Kafka reads the field as a signed int32
TAIL_ENTRIES_MAX: Final = 256

assert ENTRY_SIZE == 8, ENTRY_SIZE


class OffsetIndex:
    """The entries of one segment: `stored_count` in the file, the newest ones in memory."""

    __slots__ = ("_tail", "base_offset", "stored_count")

    def __init__(self, base_offset: int, stored_count: int) -> None:
        self.base_offset = base_offset
        # Entries in the file. Grows when the tail is stored; a sealed segment has no tail.
        self.stored_count = stored_count
        # The tail: relative offsets and positions. Replaced as a pair, never shortened, so that a reader's view stays
        # whole.
        self._tail = (array("I"), array("I"))

    def __len__(self) -> int:
        return self.stored_count + len(self._tail[0])

    @property
    def tail_count(self) -> int:
        """Entries that are not in the file yet."""
        return len(self._tail[0])

    def append(self, last_offset: int, position: int) -> None:
        """Add the entry of the batch at `position` that ends with `last_offset`."""
        relative = last_offset - self.base_offset
        assert 0 <= relative <= RELATIVE_OFFSET_MAX, f"{last_offset} lies outside the segment at {self.base_offset}"
        assert position > 0, "the segment's start needs no entry"
        offsets, positions = self._tail
        positions.append(position)
        offsets.append(relative)

    def lookup(self, offset: int, read: Read) -> int:
        """Return the position of the last indexed batch that ends at or before `offset`; 0 where there is none."""
        relative = offset - self.base_offset
        offsets, positions = self._tail
        if offsets and relative >= offsets[0]:
            return positions[bisect_right(offsets, relative) - 1]
        found = last_at_or_before(read, ENTRY, self.stored_count, relative)
        return found[1] if found else 0

    def tail_bytes(self) -> bytes:
        """Return the tail in the file's form."""
        offsets, positions = self._tail
        numbers = [0] * (2 * len(offsets))
        numbers[::2] = offsets
        numbers[1::2] = positions
        return struct.pack(f">{len(numbers)}I", *numbers)

    def tail_stored(self) -> None:
        """The tail has been written behind the stored entries."""
        self.stored_count += self.tail_count
        self._tail = (array("I"), array("I"))
