"""Fetch (key 1): read batches of records from partitions; consumers and followers send the same request.

Versions  4 isolation level, aborted transactions (KIP-98)   5 log start offset (KIP-107)   7 fetch sessions (KIP-227)
          8 response before throttling (KIP-219)   9 leader epoch (KIP-320)   10 zstd (KIP-110)
          11 rack, preferred read replica (KIP-392)   12 flexible (KIP-482), divergence by last fetched epoch (KIP-595)
          13 topic ids for names (KIP-516)   14 OFFSET_MOVED_TO_TIERED_STORAGE (KIP-405)
          15 replica epoch (KIP-903)   16 endpoints of new leaders (KIP-951)
"""

from __future__ import annotations

from millstream.core.wire.fields import ZERO_UUID, field, int8, int16, int32, int64, message, record_bytes, struct, uuid


@struct
class ReplicaState:
    replica_id: int32 = -1
    replica_epoch: int64 = -1


@struct
class FetchPartition:
    partition: int32 = 0
    current_leader_epoch: int32 = field(versions="9+", default=-1)
    fetch_offset: int64 = 0
    last_fetched_epoch: int32 = field(versions="12+", default=-1)
    # A follower tells its own; a consumer sends -1.
    log_start_offset: int64 = field(versions="5+", default=-1)
    partition_max_bytes: int32 = 0


@struct
class FetchTopic:
    topic: str = field(versions="4-12", default="")
    topic_id: uuid = field(versions="13+", default=ZERO_UUID)
    partitions: list[FetchPartition] = field(factory=list)


@struct
class ForgottenTopic:
    topic: str = field(versions="7-12", default="")
    topic_id: uuid = field(versions="13+", default=ZERO_UUID)
    partitions: list[int32] = field(factory=list)


@message(key=1, versions="4-16", flexible="12+")
class FetchRequest:
    cluster_id: str | None = field(versions="12+", tag=0, default=None)
    # -1 for a consumer.
    replica_id: int32 = field(versions="4-14", default=-1)
    replica_state: ReplicaState | None = field(versions="15+", tag=1, default=None)
    max_wait_ms: int32 = 0
    min_bytes: int32 = 0
    max_bytes: int32 = 2**31 - 1
    isolation_level: int8 = 0
    session_id: int32 = field(versions="7+", default=0)
    # 0 asks for a new session, -1 for none.
    session_epoch: int32 = field(versions="7+", default=-1)
    topics: list[FetchTopic] = field(factory=list)
    # Partitions that leave the session.
    forgotten_topics_data: list[ForgottenTopic] = field(versions="7+", factory=list)
    rack_id: str = field(versions="11+", default="")


@struct
class EpochEndOffset:
    epoch: int32 = -1
    end_offset: int64 = -1


@struct
class LeaderIdAndEpoch:
    leader_id: int32 = -1
    leader_epoch: int32 = -1


@struct
class SnapshotId:
    end_offset: int64 = -1
    epoch: int32 = -1


@struct
class AbortedTransaction:
    producer_id: int64 = 0
    first_offset: int64 = 0


@struct
class PartitionData:
    partition_index: int32 = 0
    error_code: int16 = 0
    high_watermark: int64 = 0
    # Everything before it is decided: no open transaction reaches below.
    last_stable_offset: int64 = -1
    log_start_offset: int64 = field(versions="5+", default=-1)
    diverging_epoch: EpochEndOffset | None = field(versions="12+", tag=0, default=None)
    current_leader: LeaderIdAndEpoch | None = field(versions="12+", tag=1, default=None)
    snapshot_id: SnapshotId | None = field(versions="12+", tag=2, default=None)
    aborted_transactions: list[AbortedTransaction] | None = field(factory=list)
    # Where the consumer should read from here on; -1 for here.
    preferred_read_replica: int32 = field(versions="11+", default=-1)
    # Whole batches; the first may begin before the offset asked for.
    records: record_bytes | None = None


@struct
class FetchableTopicResponse:
    topic: str = field(versions="4-12", default="")
    topic_id: uuid = field(versions="13+", default=ZERO_UUID)
    partitions: list[PartitionData] = field(factory=list)


@struct
class NodeEndpoint:
    node_id: int32 = 0
    host: str = ""
    port: int32 = 0
    rack: str | None = None


@message(key=1, versions="4-16", flexible="12+")
class FetchResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = field(versions="7+", default=0)
    session_id: int32 = field(versions="7+", default=0)
    responses: list[FetchableTopicResponse] = field(factory=list)
    node_endpoints: list[NodeEndpoint] = field(versions="16+", tag=0, factory=list)
