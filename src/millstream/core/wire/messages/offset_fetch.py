"""OffsetFetch (key 9): the offsets that groups have committed.

Versions  1 offsets kept by the brokers   2 all topics as null, an error for the group (KIP-88)
          3 throttle time (KIP-124)   5 leader epoch (KIP-320)   6 flexible (KIP-482)
          7 only what no open transaction may still change (KIP-447)   8 several groups (KIP-709)
          9 members of the new consumer protocol (KIP-848)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class OffsetFetchRequestTopic:
    name: str = ""
    partition_indexes: list[int32] = field(factory=list)


@struct
class OffsetFetchRequestTopics:
    name: str = ""
    partition_indexes: list[int32] = field(factory=list)


@struct
class OffsetFetchRequestGroup:
    group_id: str = ""
    member_id: str | None = field(versions="9+", default=None)
    member_epoch: int32 = field(versions="9+", default=-1)
    # Null for all topics.
    topics: list[OffsetFetchRequestTopics] | None = field(factory=list)


@message(key=9, versions="1-9", flexible="6+")
class OffsetFetchRequest:
    group_id: str = field(versions="1-7", default="")
    # Null for all topics.
    topics: list[OffsetFetchRequestTopic] | None = field(versions="1-7", nullable="2+", factory=list)
    groups: list[OffsetFetchRequestGroup] = field(versions="8+", factory=list)
    require_stable: bool = field(versions="7+", default=False)


@struct
class OffsetFetchResponsePartition:
    partition_index: int32 = 0
    # -1 where nothing was committed.
    committed_offset: int64 = 0
    committed_leader_epoch: int32 = field(versions="5+", default=-1)
    metadata: str | None = ""
    error_code: int16 = 0


@struct
class OffsetFetchResponseTopic:
    name: str = ""
    partitions: list[OffsetFetchResponsePartition] = field(factory=list)


@struct
class OffsetFetchResponsePartitions:
    partition_index: int32 = 0
    committed_offset: int64 = 0
    committed_leader_epoch: int32 = -1
    metadata: str | None = ""
    error_code: int16 = 0


@struct
class OffsetFetchResponseTopics:
    name: str = ""
    partitions: list[OffsetFetchResponsePartitions] = field(factory=list)


@struct
class OffsetFetchResponseGroup:
    group_id: str = ""
    topics: list[OffsetFetchResponseTopics] = field(factory=list)
    error_code: int16 = 0


@message(key=9, versions="1-9", flexible="6+")
class OffsetFetchResponse:
    throttle_time_ms: int32 = field(versions="3+", default=0)
    topics: list[OffsetFetchResponseTopic] = field(versions="1-7", factory=list)
    error_code: int16 = field(versions="2-7", default=0)
    groups: list[OffsetFetchResponseGroup] = field(versions="8+", factory=list)
