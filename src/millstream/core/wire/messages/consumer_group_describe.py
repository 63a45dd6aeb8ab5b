"""ConsumerGroupDescribe (key 69): members and assignments of groups of the new consumer protocol.

Versions  0 (KIP-848)   1 member type (KIP-1099)
"""

from __future__ import annotations

from millstream.core.wire.fields import ZERO_UUID, field, int8, int16, int32, message, struct, uuid


@message(key=69, versions="0-1", flexible="0+")
class ConsumerGroupDescribeRequest:
    group_ids: list[str] = field(factory=list)
    include_authorized_operations: bool = False


@struct
class TopicPartitions:
    topic_id: uuid = ZERO_UUID
    topic_name: str = ""
    partitions: list[int32] = field(factory=list)


@struct
class Assignment:
    topic_partitions: list[TopicPartitions] = field(factory=list)


@struct
class Member:
    member_id: str = ""
    instance_id: str | None = None
    rack_id: str | None = None
    member_epoch: int32 = 0
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: list[str] = field(factory=list)
    subscribed_topic_regex: str | None = None
    assignment: Assignment = field(factory=Assignment)
    target_assignment: Assignment = field(factory=Assignment)
    member_type: int8 = field(versions="1+", default=-1)


@struct
class DescribedGroup:
    error_code: int16 = 0
    error_message: str | None = None
    group_id: str = ""
    group_state: str = ""
    group_epoch: int32 = 0
    assignment_epoch: int32 = 0
    assignor_name: str = ""
    members: list[Member] = field(factory=list)
    authorized_operations: int32 = -(2**31)


@message(key=69, versions="0-1", flexible="0+")
class ConsumerGroupDescribeResponse:
    throttle_time_ms: int32 = 0
    groups: list[DescribedGroup] = field(factory=list)
