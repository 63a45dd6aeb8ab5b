"""Batches whose base offset lies: it stands outside of the CRC, so a flipped bit in it leaves a batch that looks whole.

Order tells. Batches of a segment ascend, and in a log that was never compacted each begins where the one before ended.
Where a batch begins before its predecessor ends, one of the two lies, and its neighbours on both sides say which: the
one that they leave no place for. Where they allow either (a compacted log has gaps), both are doubtful, and none is
served: a record under another offset than its own would be worse than none.

Pure decisions; `segment_scan` reads the batches and asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from millstream.core.log.damage import announced_size
from millstream.core.records import HEADER_SIZE, check_batches, new_rows, read_header

# Lies that are told apart in one segment. More are taken for other damage, with what they make look out of order.
LIARS_MAX: Final = 10_000


class Placed(NamedTuple):
    """A whole batch of a valid CRC, where it lies and what it says of its offsets."""

    position: int
    size_bytes: int
    base_offset: int
    offset_count: int

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.offset_count


def placed(data: memoryview, position: int) -> Placed | None:
    """Return the batch that `data` begins with, whatever its offset; None where it is not whole or fails its CRC."""
    if not HEADER_SIZE <= announced_size(data) <= len(data):
        return None
    batch = bytearray(data[: announced_size(data)])
    base_offset = int.from_bytes(batch[:8], "big", signed=True)
    batch[:8] = bytes(8)
    if check_batches(batch, 0, len(batch), 0, new_rows(1), True)[0] != 1:
        return None
    return Placed(position, len(batch), base_offset, read_header(batch).last_offset_delta + 1)


def liars(expected_offset: int, before: Placed | None, here: Placed, behind_offset: int | None) -> Sequence[Placed]:
    """Return which of `before` and `here` lie, where `here` begins before `before` ends, or anywhere out of bounds.

    `expected_offset` is one behind what precedes `before`, `behind_offset` what follows `here` begins with.
    """
    if before is None or here.base_offset >= before.next_offset:
        return (here,)
    if before.base_offset == expected_offset or here.base_offset < expected_offset:
        return (here,)
    if here.base_offset == expected_offset + before.offset_count:
        return (before,)
    if behind_offset is not None and here.next_offset <= behind_offset < before.next_offset:
        return (before,)
    return before, here


def is_one_bit_up(offset: int, expected_offset: int) -> bool:
    """Whether `offset` is the expected one but for one bit that was set in it."""
    flipped = offset ^ expected_offset
    return offset > expected_offset and flipped & (flipped - 1) == 0
