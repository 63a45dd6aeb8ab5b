"""DescribeTopicPartitions (key 75): partitions of topics, page by page, with their eligible leader replicas.

Versions  0 (KIP-966)
"""

from __future__ import annotations

from millstream.core.wire.fields import ZERO_UUID, field, int16, int32, message, struct, uuid


@struct
class TopicRequest:
    name: str = ""


@struct
class Cursor:
    topic_name: str = ""
    partition_index: int32 = 0


@message(key=75, versions="0", flexible="0+")
class DescribeTopicPartitionsRequest:
    topics: list[TopicRequest] = field(factory=list)
    response_partition_limit: int32 = 2000
    # Where the page starts; null for the first.
    cursor: Cursor | None = None


@struct
class DescribeTopicPartitionsResponsePartition:
    error_code: int16 = 0
    partition_index: int32 = 0
    leader_id: int32 = 0
    leader_epoch: int32 = -1
    replica_nodes: list[int32] = field(factory=list)
    isr_nodes: list[int32] = field(factory=list)
    eligible_leader_replicas: list[int32] | None = None
    last_known_elr: list[int32] | None = None
    offline_replicas: list[int32] = field(factory=list)


@struct
class DescribeTopicPartitionsResponseTopic:
    error_code: int16 = 0
    name: str | None = ""
    topic_id: uuid = ZERO_UUID
    is_internal: bool = False
    partitions: list[DescribeTopicPartitionsResponsePartition] = field(factory=list)
    topic_authorized_operations: int32 = -(2**31)


@struct
class CursorResponse:
    topic_name: str = ""
    partition_index: int32 = 0


@message(key=75, versions="0", flexible="0+")
class DescribeTopicPartitionsResponse:
    throttle_time_ms: int32 = 0
    topics: list[DescribeTopicPartitionsResponseTopic] = field(factory=list)
    # Null on the last page.
    next_cursor: CursorResponse | None = None
