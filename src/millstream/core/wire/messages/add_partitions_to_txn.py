"""AddPartitionsToTxn (key 24): announce to the transaction coordinator the partitions about to be written.

Versions  0 (KIP-98)   2 PRODUCER_FENCED (KIP-588)   3 flexible (KIP-482)

The fields' names say that version 4, spoken among brokers only, has a layout of its own.
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, struct


@struct
class AddPartitionsToTxnTopic:
    name: str = ""
    partitions: list[int32] = field(factory=list)


@message(key=24, versions="0-3", flexible="3+")
class AddPartitionsToTxnRequest:
    v3_and_below_transactional_id: str = ""
    v3_and_below_producer_id: int64 = 0
    v3_and_below_producer_epoch: int16 = 0
    v3_and_below_topics: list[AddPartitionsToTxnTopic] = field(factory=list)


@struct
class AddPartitionsToTxnPartitionResult:
    partition_index: int32 = 0
    partition_error_code: int16 = 0


@struct
class AddPartitionsToTxnTopicResult:
    name: str = ""
    results_by_partition: list[AddPartitionsToTxnPartitionResult] = field(factory=list)


@message(key=24, versions="0-3", flexible="3+")
class AddPartitionsToTxnResponse:
    throttle_time_ms: int32 = 0
    results_by_topic_v3_and_below: list[AddPartitionsToTxnTopicResult] = field(factory=list)
