"""What a source holds at one moment, as plain data: topics with their ids, partitions with both ends of their logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from millstream.core.wire import ErrorCode
from millstream.hadoop_loader.commit.entries import Positions

# Kafka's text for the id of a topic that has none: brokers before 2.8 give none.
NO_TOPIC_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"


class EpochEnd(NamedTuple):
    """What a leader says of an epoch (KIP-320): the largest it knows up to that one, and where it ends; else -1."""

    leader_epoch: int
    end_offset: int

    def reaches(self, offset: int) -> bool:
        """Whether records up to `offset`, the last of the epoch that was asked for, are still those of the log.

        A leader that knows of no such epoch has an older log.
        """
        return self.leader_epoch >= 0 and self.end_offset >= offset


@dataclass(frozen=True, slots=True)
class PartitionNow:
    """One partition. Where its leader did not answer, `error` says so and the offsets are -1.

    Invariant (without an error): begin_offset <= end_offset <= high_watermark.
    """

    partition: int
    leader_epoch: int = -1
    begin_offset: int = -1
    # What the job's isolation level may read up to: the last stable offset, or the high watermark.
    end_offset: int = -1
    high_watermark: int = -1
    # Where a partition that was never loaded starts, by the job.
    start_offset: int = -1
    # Where it was left by another loader, as the job, or the group that it names, says; whether or not the log has it.
    # The epoch is that of the record before, where the group says so.
    left_offset: int | None = None
    left_epoch: int = -1
    # Where this run ends, by the job: at most end_offset.
    stop_offset: int = -1
    # Of the leader's log on disk; None where the brokers do not tell.
    size_bytes: int | None = None
    # Of the epoch of the committed position, where there is one.
    epoch_end: EpochEnd | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class TopicNow:
    """One topic, its partitions by number."""

    name: str
    topic_id: str
    partitions: tuple[PartitionNow, ...]
    # Why nobody knows what the job's group left of it, which would have been needed.
    left_error: str = ""


class MissingTopic(NamedTuple):
    """A topic that the job wants and that cannot be read: what a broker said of it."""

    code: ErrorCode
    reason: str

    @property
    def is_gone(self) -> bool:
        """Whether it is not there, as opposed to one that is not shown to this principal, or not now."""
        return self.code in (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID)


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """The topics that a job wants, as they are now."""

    cluster_id: str
    topics: Mapping[str, TopicNow] = field(default_factory=dict)
    # Those that cannot be read: named by the job, or loaded before and matched by its pattern.
    missing: Mapping[str, MissingTopic] = field(default_factory=dict)
    # The positions it was read for, by topic id: later ones may lie behind the ends that it has.
    positions: Positions = field(default_factory=dict)

    @property
    def partition_count(self) -> int:
        """Partitions over all topics."""
        return sum(len(topic.partitions) for topic in self.topics.values())
