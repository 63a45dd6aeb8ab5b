"""Why offsets brought nothing: what batches say of themselves, added up for each range and reason.

A batch keeps its first and last offset whatever the cleaner takes out of it; control batches and those of transactions
are marked. So of the offsets that brought no record, those in control batches and in transactional batches nobody was
shown are known, and the rest was cleaned away. Where a whole fetch was control batches and aborted records the client
hands out nothing: that one offset was a marker, and that several were aborted records with theirs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from millstream.core.records import HEADER_SIZE, read_header
from millstream.hadoop_loader.splits import Gap, GapReason, OffsetRange

if TYPE_CHECKING:
    from millstream.core.client.consumer import FetchedRecords


class Gaps:
    """The gaps of one range."""

    def __init__(self, wanted: OffsetRange) -> None:
        self._range = wanted
        self._found: dict[GapReason, tuple[int, int, int]] = {}

    def add(self, reason: GapReason, first: int, last: int, offsets: int | None = None) -> None:
        """Note offsets first to last, `offsets` of them, all by default."""
        count = last - first + 1 if offsets is None else offsets
        if count <= 0:
            return
        known = self._found.get(reason)
        if known is not None:
            first, last, count = min(first, known[0]), max(last, known[1]), count + known[2]
        self._found[reason] = first, last, count

    def add_unseen(self, first: int, last: int) -> None:
        """Note offsets that the client passed over by itself."""
        self.add(GapReason.CONTROL if first == last else GapReason.ABORTED, first, last)

    def add_missing(self, piece: FetchedRecords, first: int, end: int, offsets: Sequence[int]) -> None:
        """Note those of [first, end) that are not among `offsets`, by the batches of a piece."""
        missing = end - first - len(offsets)
        if not missing:
            return
        for base, last, is_control, is_transactional in _batches(piece):
            low, high = max(base, first), min(last, end - 1)
            if low > high:
                continue
            if is_control:
                self.add(GapReason.CONTROL, low, high)
                missing -= high - low + 1
            elif is_transactional and not _any_within(offsets, base, last):
                self.add(GapReason.ABORTED, low, high)
                missing -= high - low + 1
        if missing > 0:
            self.add(GapReason.COMPACTION, first, end - 1, missing)

    def result(self) -> tuple[Gap, ...]:
        """Return one gap for each reason."""
        wanted = self._range
        return tuple(
            Gap(wanted.topic_id, wanted.partition, first, last, reason, count)
            for reason, (first, last, count) in sorted(self._found.items())
        )

    @property
    def count(self) -> int:
        """How many offsets brought nothing."""
        return sum(count for _, _, count in self._found.values())


def epoch_before(piece: FetchedRecords, end: int) -> int:
    """Return the leader epoch of the batch of a piece that offset end - 1 lies in; -1 where that was cleaned away."""
    position, data = 0, piece.data
    while position + HEADER_SIZE <= len(data):
        header = read_header(data, position)
        if header.last_offset >= end - 1:
            return header.partition_leader_epoch if header.base_offset < end else -1
        position += header.size_bytes
    return -1


def _batches(piece: FetchedRecords) -> list[tuple[int, int, bool, bool]]:
    found, position, data = [], 0, piece.data
    while position + HEADER_SIZE <= len(data):
        header = read_header(data, position)
        found.append((header.base_offset, header.last_offset, header.is_control, header.is_transactional))
        position += header.size_bytes
    return found


def _any_within(offsets: Sequence[int], first: int, last: int) -> bool:
    at = bisect_left(offsets, first)
    return at < len(offsets) and offsets[at] <= last
