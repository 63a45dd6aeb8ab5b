"""Metadata (key 3): the brokers, and the leaders and replicas of topics; the first thing every client asks.

Versions  1 racks, controller, internal topics (KIP-4)   2 cluster id (KIP-78)   3 throttle time (KIP-124)
          4 topic creation can be declined (KIP-4)   5 offline replicas (KIP-112)   7 leader epoch (KIP-320)
          8 authorized operations (KIP-430)   9 flexible (KIP-482)   10 topic ids (KIP-516)
          11 no authorized operations of the cluster any more (KIP-700)   12 topics asked for by id (KIP-516)

No topics means all of them as an empty array in version 0, and as null from version 1 on.
"""

from __future__ import annotations

from millstream.core.wire.fields import ZERO_UUID, field, int16, int32, message, struct, uuid


@struct
class MetadataRequestTopic:
    topic_id: uuid = field(versions="10+", default=ZERO_UUID)
    name: str | None = field(nullable="10+", default="")


@message(key=3, versions="0-12", flexible="9+")
class MetadataRequest:
    # Null for all topics.
    topics: list[MetadataRequestTopic] | None = field(nullable="1+", factory=list)
    allow_auto_topic_creation: bool = field(versions="4+", default=True)
    include_cluster_authorized_operations: bool = field(versions="8-10", default=False)
    include_topic_authorized_operations: bool = field(versions="8+", default=False)


@struct
class MetadataResponseBroker:
    node_id: int32 = 0
    host: str = ""
    port: int32 = 0
    rack: str | None = field(versions="1+", default=None)


@struct
class MetadataResponsePartition:
    error_code: int16 = 0
    partition_index: int32 = 0
    leader_id: int32 = 0
    leader_epoch: int32 = field(versions="7+", default=-1)
    replica_nodes: list[int32] = field(factory=list)
    isr_nodes: list[int32] = field(factory=list)
    offline_replicas: list[int32] = field(versions="5+", factory=list)


@struct
class MetadataResponseTopic:
    error_code: int16 = 0
    name: str | None = field(nullable="12+", default="")
    topic_id: uuid = field(versions="10+", default=ZERO_UUID)
    is_internal: bool = field(versions="1+", default=False)
    partitions: list[MetadataResponsePartition] = field(factory=list)
    # A bit per operation; the smallest int32 where it was not asked for.
    topic_authorized_operations: int32 = field(versions="8+", default=-(2**31))


@message(key=3, versions="0-12", flexible="9+")
class MetadataResponse:
    throttle_time_ms: int32 = field(versions="3+", default=0)
    brokers: list[MetadataResponseBroker] = field(factory=list)
    cluster_id: str | None = field(versions="2+", default=None)
    controller_id: int32 = field(versions="1+", default=-1)
    topics: list[MetadataResponseTopic] = field(factory=list)
    cluster_authorized_operations: int32 = field(versions="8-10", default=-(2**31))
