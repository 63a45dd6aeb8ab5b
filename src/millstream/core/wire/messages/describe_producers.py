"""DescribeProducers (key 61): the producers a partition's leader remembers, to find transactions left open.

Versions  0 (KIP-664)
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class TopicRequest:
    name: str = ""
    partition_indexes: list[int32] = field(factory=list)


@message(key=61, versions="0", flexible="0+")
class DescribeProducersRequest:
    topics: list[TopicRequest] = field(factory=list)


@struct
class ProducerState:
    producer_id: int64 = 0
    producer_epoch: int32 = 0
    last_sequence: int32 = -1
    last_timestamp: int64 = -1
    coordinator_epoch: int32 = 0
    current_txn_start_offset: int64 = -1


@struct
class PartitionResponse:
    partition_index: int32 = 0
    error_code: int16 = 0
    error_message: str | None = None
    active_producers: list[ProducerState] = field(factory=list)


@struct
class TopicResponse:
    name: str = ""
    partitions: list[PartitionResponse] = field(factory=list)


@message(key=61, versions="0", flexible="0+")
class DescribeProducersResponse:
    throttle_time_ms: int32 = 0
    topics: list[TopicResponse] = field(factory=list)
