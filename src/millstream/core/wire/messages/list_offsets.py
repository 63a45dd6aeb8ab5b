"""ListOffsets (key 2): the offset at a timestamp, or at either end of the log.

Versions  1 one offset per partition (KIP-79)   2 isolation level (KIP-98)   4 leader epoch (KIP-320)
          5 OFFSET_NOT_AVAILABLE (KIP-207)   6 flexible (KIP-482)   7 the largest timestamp (KIP-734)
          8 start of the local log (KIP-405)

Timestamps below zero ask for a place: -1 the end of the log, -2 its start, -3 the largest timestamp, -4 the start of
what is local.
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int8, int16, int32, int64, message, struct


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
    # -1 for a consumer.
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
