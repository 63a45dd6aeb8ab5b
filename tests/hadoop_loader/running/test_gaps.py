"""Why offsets brought nothing, by the batches of a fetch."""

from __future__ import annotations

from millstream import TopicPartition
from millstream.core.client.consumer import FetchedRecords
from millstream.core.records import BatchBuilder
from millstream.hadoop_loader.running.gaps import Gaps
from millstream.hadoop_loader.splits import GapReason, OffsetRange


def batch(base_offset: int, count: int, *, transactional: bool = False, control: bool = False) -> bytes:
    builder = BatchBuilder(base_offset=base_offset, transactional=transactional, control=control, producer_id=1)
    for _ in range(count):
        builder.append(0, b"\0\0\0\1", b"value")
    return builder.build()


def test_each_offset_has_its_reason() -> None:
    data = b"".join(
        [
            batch(0, 3),
            batch(3, 2, transactional=True),  # committed: shown
            batch(5, 1, transactional=True, control=True),
            batch(6, 2, transactional=True),  # aborted
            batch(8, 1, transactional=True, control=True),
            batch(13, 2),  # 9 to 12 were cleaned away
        ]
    )
    piece = FetchedRecords(TopicPartition("t", 0), memoryview(data), offset=0, next_offset=15)
    gaps = Gaps(OffsetRange("t", "id", 0, -1, 0, 15))
    gaps.add_missing(piece, 0, 15, [0, 1, 2, 3, 4, 13, 14])
    gaps.add_unseen(15, 15)
    gaps.add_unseen(16, 19)
    assert {gap.reason: (gap.first, gap.last, gap.offsets) for gap in gaps.result()} == {
        GapReason.CONTROL: (5, 15, 3),
        GapReason.ABORTED: (6, 19, 6),
        GapReason.COMPACTION: (0, 14, 4),
    }
    assert gaps.count == 13


def test_only_offsets_of_the_range_count() -> None:
    data = batch(0, 2, transactional=True) + batch(2, 4, transactional=True, control=True)
    piece = FetchedRecords(TopicPartition("t", 0), memoryview(data), offset=1, next_offset=6)
    gaps = Gaps(OffsetRange("t", "id", 0, -1, 1, 4))
    gaps.add_missing(piece, 1, 4, [])
    assert {gap.reason: (gap.first, gap.last, gap.offsets) for gap in gaps.result()} == {
        GapReason.ABORTED: (1, 1, 1),
        GapReason.CONTROL: (2, 3, 2),
    }
