"""ConsumerGroupHeartbeat (key 68): join, stay in and leave a group of the new consumer protocol, all in one call.

Versions  0 (KIP-848)   1 subscription by regular expression (KIP-848), member ids made by the client (KIP-1082)

A field left at its default has not changed since the member's last heartbeat.
"""

from __future__ import annotations

from millstream.core.wire.fields import ZERO_UUID, field, int16, int32, message, struct, uuid


@struct
class TopicPartitions:
    topic_id: uuid = ZERO_UUID
    partitions: list[int32] = field(factory=list)


@message(key=68, versions="0-1", flexible="0+")
class ConsumerGroupHeartbeatRequest:
    group_id: str = ""
    member_id: str = ""
    # 0 to join, -1 to leave, -2 for a static member that will come back.
    member_epoch: int32 = 0
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int32 = -1
    subscribed_topic_names: list[str] | None = None
    subscribed_topic_regex: str | None = field(versions="1+", default=None)
    server_assignor: str | None = None
    topic_partitions: list[TopicPartitions] | None = None


@struct
class TopicPartitionsResponse:
    topic_id: uuid = ZERO_UUID
    partitions: list[int32] = field(factory=list)


@struct
class Assignment:
    topic_partitions: list[TopicPartitionsResponse] = field(factory=list)


@message(key=68, versions="0-1", flexible="0+")
class ConsumerGroupHeartbeatResponse:
    throttle_time_ms: int32 = 0
    error_code: int16 = 0
    error_message: str | None = None
    member_id: str | None = None
    member_epoch: int32 = 0
    heartbeat_interval_ms: int32 = 0
    # Null where it has not changed.
    assignment: Assignment | None = None
