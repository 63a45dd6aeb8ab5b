"""How far a range has been read, and what was in it: the numbers of a RangeRead while they grow."""

from __future__ import annotations

from millstream.core.client.cluster import TopicPartition
from millstream.hadoop_loader.running.gaps import Gaps
from millstream.hadoop_loader.splits import GapReason, OffsetRange, RangeRead


class RangeState:
    """One range being read.

    Invariant, at the end of each piece: next_offset - start_offset == rows + bad + tombstones_left_out + gaps.count.
    """

    def __init__(self, wanted: OffsetRange) -> None:
        self.wanted = wanted
        self.gaps = Gaps(wanted)
        # The offset behind the last one that is accounted for. Invariant: start_offset <= next_offset <= end_offset.
        self.next_offset = wanted.start_offset
        # Of the batch that next_offset - 1 lies in, be it a marker; -1 where that batch was not seen. The epoch of an
        # earlier record would not do: a later leader may have begun between the two, and the log would look as if cut.
        self.leader_epoch = -1
        self.rows = 0
        self.late = 0
        self.bad = 0
        self.tombstones = 0
        self.tombstones_left_out = 0
        self.bytes = 0
        # The latest time that directories are named by: a field's, or the records' own.
        self.max_timestamp_ms = -1

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition's name."""
        return TopicPartition(self.wanted.topic, self.wanted.partition)

    @property
    def is_done(self) -> bool:
        """Whether every offset is accounted for."""
        return self.next_offset >= self.wanted.end_offset

    def pass_unseen(self, position: int, leader_epoch: int = -1) -> None:
        """The client is at `position`, behind a batch of `leader_epoch`, and has shown nothing of what lies before."""
        end = min(position, self.wanted.end_offset)
        if end > self.next_offset:
            self.gaps.add_unseen(self.next_offset, end - 1)
            self.next_offset = end
            self.leader_epoch = leader_epoch if end == position else -1

    def pass_deleted(self, log_start_offset: int) -> None:
        """The log begins at `log_start_offset` now."""
        end = min(log_start_offset, self.wanted.end_offset)
        if end > self.next_offset:
            self.gaps.add(GapReason.RETENTION, self.next_offset, end - 1)
            self.next_offset = end
            self.leader_epoch = -1

    def check(self) -> None:
        """Assert the invariant."""
        found = self.rows + self.bad + self.tombstones_left_out + self.gaps.count
        passed = self.next_offset - self.wanted.start_offset
        if found != passed:
            # No assert, which Python may be told to leave out: rows would be lost.
            raise AssertionError(
                f"{self.topic_partition}: {passed} offsets from {self.wanted.start_offset} on are {self.rows} rows,"
                f" {self.bad} bad, {self.tombstones_left_out} tombstones, {self.gaps.count} gaps"
            )

    def result(self) -> RangeRead:
        """Return the numbers."""
        self.check()
        wanted = self.wanted
        return RangeRead(
            topic=wanted.topic,
            topic_id=wanted.topic_id,
            partition=wanted.partition,
            start_offset=wanted.start_offset,
            next_offset=self.next_offset,
            leader_epoch=self.leader_epoch,
            rows=self.rows,
            bad=self.bad,
            tombstones=self.tombstones,
            tombstones_left_out=self.tombstones_left_out,
            bytes=self.bytes,
            max_timestamp_ms=self.max_timestamp_ms,
            late=self.late,
        )
