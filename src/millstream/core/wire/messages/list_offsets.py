"""ListOffsets"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, int8, message, struct


@struct
class ListOffsetsPartition:
    partition_index: int32 = 0
    current_leader_epoch: int32 = field(versions="4+", default=-1)
    timestamp: int64 = 0


@struct
class ListOffsetsTopic:
    name: str = ""
    partitions: list[ListOffsetsPartition] = field(factory=list)


@message(key=2, versions="1-8", flexible="6+")
class ListOffsetsRequest:
    replica_id: int32 = 0
    isolation_level: int8 = field(versions="2+", default=0)
    topics: list[ListOffsetsTopic] = field(factory=list)


@struct
class ListOffsetsPartitionResponse:
    partition_index: int32 = 0
    error_code: int16 = 0
    timestamp: int64 = -1
    offset: int64 = -1
    leader_epoch: int32 = field(versions="4+", default=-1)


@struct
class ListOffsetsTopicResponse:
    name: str = ""
    partitions: list[ListOffsetsPartitionResponse] = field(factory=list)


@message(key=2, versions="1-8", flexible="6+")
class ListOffsetsResponse:
    throttle_time_ms: int32 = field(versions="2+", default=0)
    topics: list[ListOffsetsTopicResponse] = field(factory=list)
