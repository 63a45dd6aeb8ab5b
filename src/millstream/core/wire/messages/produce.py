"""Produce (key 0): append batches of records to partitions, and learn the offsets they were given.

Versions  3 batches of magic 2, transactional id (KIP-98)   5 log start offset (KIP-107)   7 zstd (KIP-110)
          8 which records were at fault (KIP-467)   9 flexible (KIP-482)   10 current leader, its endpoint (KIP-951)
          11 TRANSACTION_ABORTABLE (KIP-890)

With acks=0 there is no response at all.
"""

from __future__ import annotations

from millstream.core.wire.fields import field, int16, int32, int64, message, record_bytes, struct


@struct
class PartitionProduceData:
    index: int32 = 0
    # Exactly one batch.
    records: record_bytes | None = None


@struct
class TopicProduceData:
    name: str = ""
    partition_data: list[PartitionProduceData] = field(factory=list)


@message(key=0, versions="3-11", flexible="9+")
class ProduceRequest:
    transactional_id: str | None = None
    # 0 none and no response, 1 the leader, -1 all in-sync replicas.
    acks: int16 = 0
    timeout_ms: int32 = 0
    topic_data: list[TopicProduceData] = field(factory=list)


@struct
class BatchIndexAndErrorMessage:
    batch_index: int32 = 0
    batch_index_error_message: str | None = None


@struct
class LeaderIdAndEpoch:
    leader_id: int32 = -1
    leader_epoch: int32 = -1


@struct
class PartitionProduceResponse:
    index: int32 = 0
    error_code: int16 = 0
    # Offset of the batch's first record.
    base_offset: int64 = 0
    # -1 unless the topic's timestamps are those of the append.
    log_append_time_ms: int64 = -1
    log_start_offset: int64 = field(versions="5+", default=-1)
    record_errors: list[BatchIndexAndErrorMessage] = field(versions="8+", factory=list)
    error_message: str | None = field(versions="8+", default=None)
    current_leader: LeaderIdAndEpoch | None = field(versions="10+", tag=0, default=None)


@struct
class TopicProduceResponse:
    name: str = ""
    partition_responses: list[PartitionProduceResponse] = field(factory=list)


@struct
class NodeEndpoint:
    node_id: int32 = 0
    host: str = ""
    port: int32 = 0
    rack: str | None = None


@message(key=0, versions="3-11", flexible="9+")
class ProduceResponse:
    responses: list[TopicProduceResponse] = field(factory=list)
    throttle_time_ms: int32 = 0
    node_endpoints: list[NodeEndpoint] = field(versions="10+", tag=0, factory=list)
