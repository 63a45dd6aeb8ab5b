"""OffsetForLeaderEpoch (key 23): where a leader epoch ends in the log, so that a reader finds where it diverged.

Versions  2 current leader epoch, throttle time (KIP-320)   3 replica id (KIP-392)   4 flexible (KIP-482)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class OffsetForLeaderPartition:
    partition: int32 = 0
    current_leader_epoch: int32 = -1
    leader_epoch: int32 = 0


@struct
class OffsetForLeaderTopic:
    topic: str = ""
    partitions: list[OffsetForLeaderPartition] = field(factory=list)


@message(key=23, versions="2-4", flexible="4+")
class OffsetForLeaderEpochRequest:
    # -1 for a consumer, -2 for a tool that may look beyond the high watermark.
    replica_id: int32 = field(versions="3+", default=-2)
    topics: list[OffsetForLeaderTopic] = field(factory=list)


@struct
class EpochEndOffset:
    error_code: int16 = 0
    partition: int32 = 0
    leader_epoch: int32 = -1
    end_offset: int64 = -1


@struct
class OffsetForLeaderTopicResult:
    topic: str = ""
    partitions: list[EpochEndOffset] = field(factory=list)


@message(key=23, versions="2-4", flexible="4+")
class OffsetForLeaderEpochResponse:
    throttle_time_ms: int32 = 0
    topics: list[OffsetForLeaderTopicResult] = field(factory=list)
