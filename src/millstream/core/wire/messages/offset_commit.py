"""OffsetCommit (key 8): store a group's offsets.

Versions  2 retention by the client   3 throttle time (KIP-124)   5 retention by the broker alone (KIP-211)
          6 leader epoch (KIP-320)   7 static members (KIP-345)   8 flexible (KIP-482)
          9 members of the new consumer protocol (KIP-848)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class OffsetCommitRequestPartition:
    partition_index: int32 = 0
    committed_offset: int64 = 0
    committed_leader_epoch: int32 = field(versions="6+", default=-1)
    committed_metadata: str | None = ""


@struct
class OffsetCommitRequestTopic:
    name: str = ""
    partitions: list[OffsetCommitRequestPartition] = field(factory=list)


@message(key=8, versions="2-9", flexible="8+")
class OffsetCommitRequest:
    group_id: str = ""
    # -1 from a client outside of the group's protocol.
    generation_id_or_member_epoch: int32 = -1
    member_id: str = ""
    group_instance_id: str | None = field(versions="7+", default=None)
    # -1 for the broker's own.
    retention_time_ms: int64 = field(versions="2-4", default=-1)
    topics: list[OffsetCommitRequestTopic] = field(factory=list)


@struct
class OffsetCommitResponsePartition:
    partition_index: int32 = 0
    error_code: int16 = 0


@struct
class OffsetCommitResponseTopic:
    name: str = ""
    partitions: list[OffsetCommitResponsePartition] = field(factory=list)


@message(key=8, versions="2-9", flexible="8+")
class OffsetCommitResponse:
    throttle_time_ms: int32 = field(versions="3+", default=0)
    topics: list[OffsetCommitResponseTopic] = field(factory=list)
